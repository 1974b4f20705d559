"""Floor 2: what we know of architectures, by structure and never by name, and the streamed files of
their tensors.
"""
