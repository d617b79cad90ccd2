"""How a conversation becomes a model's prompt: one way for serving and for training, so that they cannot differ."""

from __future__ import annotations
