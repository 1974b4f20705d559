"""The native engine: packed weights that stay in mapped files, computed by the C++ library without
torch.

`reader` finds the weights of a model folder, `matrices` checks stored matrices, `weights` describes
a model in plain numpy, `abi` converts it to the structures of the library, `engine` runs it.
`product` multiplies with one matrix, for tests and self-tests.
"""
