"""GGUF, the file format of llama.cpp and its relatives: the container, its block types, metadata
and tokenizers, read and written.
"""
