"""One base model in memory, many adapters on it, requests answered in batches.

A single worker thread owns the model: switching PEFT adapters is global state, and from two threads it silently
answers with the wrong adapter. The requests of one adapter decode together in a `Lane`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads collapse beside another busy process

try:
    import torch
    from peft import PeftModel
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging
except ImportError as exc:
    from cmat_graph.errors import MissingExtraError

    raise MissingExtraError.of("local", exc) from exc

from cmat_graph.adapters import AdapterCard
from cmat_graph.bases import hash_base, resolve_base
from cmat_graph.errors import AdapterMismatchError, AdapterNotFoundError, ModelNotFoundError
from cmat_graph.models.lane import Lane, Row, Sampling

MAX_ROWS = 32
"""Rows in flight for one adapter."""
QUIET_SECONDS = 0.002
"""An idle engine waits this long for company before it starts."""


@dataclass(slots=True, kw_only=True)
class Generated:
    """One reply."""

    text: str
    input_tokens: int
    output_tokens: int
    finish_reason: str
    """`stop` when the model ended its turn, `length` when the limit did."""


class Engine:
    """Answers prompts with one base model and its adapters. Thread-safe.

    Args:
        base: `nano`, a model folder, or a hub id.
        dtype: A torch dtype name; None takes float32 on a CPU and the model's own on a GPU.

    Raises:
        ModelNotFoundError: There is no such model, or it cannot be loaded.

    """

    def __init__(self, base: str, *, dtype: str | None = None) -> None:
        location = resolve_base(base)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(location)
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                location, dtype=dtype or ("auto" if device == "cuda" else torch.float32), use_safetensors=True
            ).to(device)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as exc:
            reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
            raise ModelNotFoundError(f"cannot load base {base!r}: {reason}; give a folder that holds it") from exc
        if self.tokenizer.chat_template is None:
            raise ModelNotFoundError(f"base {base!r} has no chat template; take an instruction-tuned model")
        self._model.eval()
        self.base = base
        self.base_hash = hash_base(location)
        self.window = int(getattr(self._model.config, "max_position_embeddings", 0) or 4096)
        """Tokens a prompt and its reply may take together."""
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.tokenizer.padding_side = "left"
        self._adapters: set[str] = set()
        ends = self._model.generation_config.eos_token_id or self.tokenizer.eos_token_id
        self._ends = {ends} if isinstance(ends, int) else set(ends or ())
        self._arrivals: queue.SimpleQueue[Row] = queue.SimpleQueue()
        self._model_lock = threading.Lock()
        self._chosen: str | None = None
        threading.Thread(target=self._work, name=f"engine {base}", daemon=True).start()

    def add_adapter(self, card: AdapterCard) -> str:
        """Load an adapter; return the key by which calls choose it. Two of one name but other weights have two keys.

        Raises:
            AdapterMismatchError: It was trained on another base.
            AdapterNotFoundError: Its files cannot be read.

        """
        known = card.base_hash and self.base_hash
        if (card.base_hash != self.base_hash) if known else (card.base != self.base):
            raise AdapterMismatchError(
                f"adapter {card.id} was trained on {card.base} ({card.base_hash[:12]}), "
                f"not on {self.base} ({self.base_hash[:12]}); load that base"
            )
        weights = card.weights_hash
        if not weights:
            raise AdapterNotFoundError(
                f"adapter {card.id} has no weights in {card.folder}; restore or remove the folder"
            )
        name = f"{card.id}@{weights[:12]}".replace("/", "__").replace(".", "_")  # PEFT's module names hold no dots
        with self._model_lock, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")  # PEFT 0.21 uses an old name
            if name in self._adapters:
                return name
            try:
                if isinstance(self._model, PeftModel):
                    self._model.load_adapter(card.folder, adapter_name=name)
                else:
                    self._model = PeftModel.from_pretrained(self._model, card.folder, adapter_name=name)
            except (OSError, ValueError, RuntimeError, SafetensorError) as exc:
                reason = str(exc).strip().splitlines()[0]
                raise AdapterNotFoundError(f"cannot load adapter {card.id} from {card.folder}: {reason}") from exc
            self._model.eval()
            self._chosen = None  # PEFT has changed what is current
            self._adapters.add(name)
        return name

    def encode(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """Render messages by the model's chat template and encode them."""
        encoded = self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, return_dict=True, tokenizer_kwargs={"verbose": False}
        )
        return list(encoded["input_ids"])

    def submit(self, prompt: list[int], *, adapter: str = "", sampling: Sampling = Sampling()) -> Future[Generated]:
        """Queue a prompt; the future holds its reply.

        Raises:
            ValueError: The prompt leaves no room for a reply.
            AdapterNotFoundError: No such adapter was loaded.

        """
        room = self.window - len(prompt)
        if room < 1:
            raise ValueError(
                f"the prompt of {len(prompt)} tokens fills the window of {self.window}; shorten the trajectory"
            )
        if adapter and adapter not in self._adapters:
            raise AdapterNotFoundError(
                f"adapter {adapter!r} is not loaded; known: {', '.join(sorted(self._adapters)) or 'none'}"
            )
        row = Row(prompt=prompt, adapter=adapter, sampling=sampling._replace(max_tokens=min(sampling.max_tokens, room)))
        self._arrivals.put(row)
        return row.future

    # -- the worker ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        lanes: dict[str, Lane] = {}
        waiting: list[Row] = []
        while True:
            self._receive(waiting, idle=not waiting and not lanes)
            for adapter in dict.fromkeys([*lanes, *(row.adapter for row in waiting)]):
                lane = lanes.get(adapter) or self._open_lane()
                room = MAX_ROWS - len(lane.rows)
                new = [row for row in waiting if row.adapter == adapter][:room]
                waiting = [row for row in waiting if row not in new]
                self._advance(lane, adapter, [row for row in new if row.future.set_running_or_notify_cancel()])
                lanes[adapter] = lane
            lanes = {adapter: lane for adapter, lane in lanes.items() if lane.rows}

    def _receive(self, waiting: list[Row], *, idle: bool) -> None:
        """Take what has arrived; when idle, wait for the first and a moment for its company."""
        with contextlib.suppress(queue.Empty):
            if idle:
                waiting.append(self._arrivals.get())
            while True:
                waiting.append(self._arrivals.get(block=idle, timeout=QUIET_SECONDS if idle else None))

    def _advance(self, lane: Lane, adapter: str, new: list[Row]) -> None:
        """Let new rows join and all rows go one step; hand out what is done."""
        try:
            with self._model_lock:
                self._choose(adapter)
                done = lane.join(new) if new else []
                if lane.rows:
                    done += lane.step()
        except Exception as exc:  # handed to the callers: the worker must outlive any batch
            for row in {*lane.rows, *new}:
                row.future.set_exception(exc)
            lane.rows = []
        else:
            for row in done:
                row.future.set_result(self._read(row))

    def _open_lane(self) -> Lane:
        return Lane(self._model, pad_token=self.tokenizer.pad_token_id, ends=self._ends)

    def _choose(self, adapter: str) -> None:
        """Make an adapter, or the bare base, the model's current one. Only the worker may do this."""
        if adapter == self._chosen or not isinstance(self._model, PeftModel):
            return
        if adapter:
            self._model.base_model.enable_adapter_layers()
            self._model.set_adapter(adapter)
        else:
            self._model.base_model.disable_adapter_layers()
        self._chosen = adapter

    def _read(self, row: Row) -> Generated:
        ended = row.tokens[-1] in self._ends
        return Generated(
            text=self.tokenizer.decode(row.tokens[:-1] if ended else row.tokens, skip_special_tokens=True),
            input_tokens=len(row.prompt),
            output_tokens=len(row.tokens),
            finish_reason="stop" if ended else "length",
        )


_engines: dict[tuple[str, str | None], Engine] = {}
_engines_lock = threading.Lock()


def shared_engine(base: str, *, dtype: str | None = None) -> Engine:
    """Return the process's engine of a base: all nodes of all graphs share one copy of its weights."""
    key = (str(Path(resolve_base(base)).resolve()) if base == "nano" or Path(base).is_dir() else base, dtype)
    with _engines_lock:
        if key not in _engines:
            _engines[key] = Engine(base, dtype=dtype)
        return _engines[key]
