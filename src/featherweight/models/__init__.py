"""Knowledge about model architectures, found from the structure of a model and not from its name,
and the files of its tensors, read one at a time.
"""
