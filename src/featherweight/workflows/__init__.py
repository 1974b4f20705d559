"""Workflows: one function for each shell command, in a file of its own.

Nothing is imported here, so that `doctor` also runs when a package that another workflow needs is
broken.
"""
