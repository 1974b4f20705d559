"""What must be fast or exact: each operation together with the plain reference that defines it.

`trellis` encodes and decodes the bitshift trellis, `hadamard` rotates, `lanes` is the storage order
of packed codes, `matmul` decodes weights that are stored in that order, `sampling` chooses tokens.
Each operation uses the native library where there is one, and its own reference otherwise.
"""
