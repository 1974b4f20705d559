"""Fewer bits: formats, curvature, rounding, transforms, and the plan that says where."""
