"""What must be fast: each operation beside the plain PyTorch reference that defines it.

`trellis` walks the bitshift trellis both ways, `hadamard` rotates, `lanes` is the storage order of
packed codes, `matmul` reads weights in that order. Every verb picks the native library when it is
there, its own reference otherwise.
"""
