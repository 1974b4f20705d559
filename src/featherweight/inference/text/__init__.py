"""Text for generation: a model's tokenizer and chat template, text that is shown token by token,
and answers that follow a JSON schema.

Nothing here imports torch or transformers.
"""
