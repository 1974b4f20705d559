"""Reasoning length: training by reinforcement so that a model thinks only as long as the question
needs.
"""
