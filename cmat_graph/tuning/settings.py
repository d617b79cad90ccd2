"""How an adapter is trained. The paper gives no hyperparameters: every default here is this project's own."""

from __future__ import annotations

from dataclasses import dataclass

from cmat_graph.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Supervised finetuning with LoRA, on completions only."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    learning_rate: float = 2e-3
    """Peak; linear warm-up over 3 % of the steps, then a cosine. For bases of a billion parameters take 2e-4."""
    epochs: float = 3.0
    batch_size: int = 16
    max_length: int = 1024
    """Longest example in tokens; longer ones are left out and counted, never cut."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.rank, self.alpha, self.batch_size, self.max_length) < 1 or self.epochs <= 0:
            raise ConfigurationError("rank, alpha, batch size, length and epochs must be positive")
        if self.learning_rate <= 0 or not 0 <= self.dropout < 1:
            raise ConfigurationError("the learning rate must be positive and the dropout in 0..1")
