"""Quantization: number formats, curvature, rounding methods, rotations, and plans that assign a
format to each layer.
"""
