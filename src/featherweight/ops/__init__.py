"""Operations that must be fast or exact, each with a plain reference that defines its result.

`trellis` encodes and decodes the bitshift trellis, `hadamard` rotates, `lanes` is the storage order
of packed codes, `matmul` decodes weights in that order, `sampling` chooses tokens. An operation
uses the native library if it is available, else its reference.
"""
