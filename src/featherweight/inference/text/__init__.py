"""Text for generation: a model's tokenizer and chat template, text that is shown as it is made, and
answers bound to a JSON schema.

Nothing here imports torch or transformers.
"""
