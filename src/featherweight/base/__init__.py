"""The lowest package: modules that every other package uses, and that know nothing about tensors,
models or the shell.

It has the errors with their exit codes, events, the bit ledger, the text form of objects, atomic
writing of files, the folder of a resumable run, and facts about the machine. It imports no torch.
"""
