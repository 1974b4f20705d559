"""Floor 0: what every room uses, and what knows nothing of tensors, models or the shell.

Errors with their exit codes, events, the bit ledger, the text form of objects, files written so
that a crash leaves either the old or the new content, the folder of a resumable run, and facts
about the machine. Imports no torch.
"""
