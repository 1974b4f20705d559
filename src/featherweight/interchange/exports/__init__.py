"""Packed models written for other programs, code for code, then read again and compared."""
