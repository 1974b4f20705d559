"""Our length rules and `ShortARC` inside other trainers: TRL, verl, OpenRLHF and verifiers.

Each module imports its trainer only when something of it is used that needs the trainer.
"""
