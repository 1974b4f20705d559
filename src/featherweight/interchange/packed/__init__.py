"""Packed model folders: what config.json says of them, how they are written, loaded and verified."""
