"""Generation with the PyTorch path: chat templates, sampling, streaming."""

from .conversation import Conversation, answer

__all__ = ["Conversation", "answer"]
