"""How an adapter is trained. The paper gives no hyperparameters: every default here is this project's own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cmat_graph.errors import ConfigurationError

Method = Literal["lora", "rslora", "dora", "qlora", "p-tuning", "prefix", "full"]
Objective = Literal["sft", "dpo", "kto"]
METHODS: tuple[Method, ...] = ("lora", "rslora", "dora", "qlora", "p-tuning", "prefix", "full")
OBJECTIVES: tuple[Objective, ...] = ("sft", "dpo", "kto")
_RATES: dict[Method, float] = {"p-tuning": 1e-2, "prefix": 1e-2, "full": 5e-4}
_RATE = 2e-3
_PREFERENCE_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """Finetuning on what a dataset's messages weigh, or on its preferences."""

    method: Method = "lora"
    """`lora`, `rslora`, `dora`, `qlora` (a 4-bit base, on CUDA), `p-tuning`, `prefix`, or `full`: every weight."""
    objective: Objective = "sft"
    """`sft` on the weights of messages, `dpo` on pairs, `kto` on judged replies."""
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    virtual_tokens: int = 20
    """Trained vectors in front of the prompt, for `p-tuning` and `prefix`."""
    learning_rate: float | None = None
    """Peak, after a linear warm-up over 3 % of the steps, then a cosine. None takes what suits the method on a base of
    millions of parameters: 2e-3 for LoRA; for one of billions take 2e-4."""
    beta: float = 0.1
    """How close `dpo` and `kto` stay to the model they begin from."""
    epochs: float = 3.0
    max_steps: int = 0
    """End after so many steps; 0 goes by epochs."""
    batch_size: int = 8
    """Conversations (or pairs) for one step, over all processes. A joined conversation holds several targets: few of
    them make enough steps of a few hundred episodes."""
    micro_batch: int = 0
    """Of these so many at a time on one device; 0 takes all that one process has."""
    max_length: int = 1024
    """Longest row in tokens; what is longer is left out and counted, never cut."""
    join_turns: bool = True
    """Train the turns of one episode as one sequence where that gives the same gradient."""
    save_steps: int = 100
    """Keep a checkpoint every so many steps; a run that was killed goes on from the last."""
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` is bfloat16 where the device computes this base in it faster, else float32."""
    sharding: Literal["", "fsdp", "zero2", "zero3"] = ""
    """Divide the weights among torchrun's processes: FSDP, or DeepSpeed's ZeRO 2 or 3. Empty: each has them all."""
    report_to: tuple[str, ...] = ()
    """Besides TensorBoard: `wandb`, `mlflow`, where they are installed."""

    def __post_init__(self) -> None:
        if self.method not in METHODS or self.objective not in OBJECTIVES:
            raise ConfigurationError(
                f"no method {self.method!r} or objective {self.objective!r}; methods: {', '.join(METHODS)}; "
                f"objectives: {', '.join(OBJECTIVES)}"
            )
        if not all(map(math.isfinite, (self.epochs, self.beta, self.dropout, self.learning_rate or 0.0))):
            raise ConfigurationError("epochs, beta, dropout and learning rate must be numbers, and finite")
        if min(self.rank, self.alpha, self.batch_size, self.max_length, self.virtual_tokens) < 1 or self.epochs <= 0:
            raise ConfigurationError("rank, alpha, virtual tokens, batch size, length and epochs must be positive")
        if min(self.max_steps, self.micro_batch, self.save_steps) < 0 or self.beta <= 0:
            raise ConfigurationError("steps and micro-batch must not be negative, and beta must be positive")
        if (self.learning_rate is not None and self.learning_rate <= 0) or not 0 <= self.dropout < 1:
            raise ConfigurationError("the learning rate must be positive and the dropout in 0..1")

    @property
    def rate(self) -> float:
        """The learning rate that is used."""
        if self.learning_rate is not None:
            return self.learning_rate
        rate = _RATES.get(self.method, _RATE)
        return rate if self.objective == "sft" else rate * _PREFERENCE_SHARE
