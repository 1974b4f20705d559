"""The native engine: packed weights where they lie in mapped files, run by the C++ library without
torch.

`reader` finds the weights of a model folder, `matrices` checks stored matrices, `weights` describes
a model in plain numpy, `abi` puts it into the library's structures, `engine` runs it. `product`
multiplies with one matrix, for tests and self-tests.
"""
