"""Packed model folders: their description in config.json, and how they are written, loaded and
verified.
"""
