"""One base model in memory, many adapters on it, requests answered in batches.

A single worker thread owns the model: switching PEFT adapters is global state, and from two threads it silently
answers with the wrong adapter. Requests of one adapter and one setting that arrive together share a batch.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads collapse beside another busy process

try:
    import torch
    from peft import PeftModel
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria, StoppingCriteriaList
    from transformers.utils import logging as transformers_logging
except ImportError as exc:
    from cmat_graph.errors import MissingExtraError

    raise MissingExtraError.of("local", exc) from exc

from cmat_graph.adapters import AdapterCard
from cmat_graph.bases import hash_base, resolve_base
from cmat_graph.errors import AdapterMismatchError, AdapterNotFoundError, ModelNotFoundError

MAX_BATCH = 16
QUIET_SECONDS = 0.02
"""How long no request may come before a batch starts; callers come back one by one from their environments."""
PAD_TO = 32
"""Widths are multiples of this: with every new shape oneDNN keeps more memory."""


LOOP_TOKENS = 96
"""A reply whose last tokens, this many, only repeat a piece of at most a third of them is going nowhere: it ends."""


class _Looping(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, prompt_width: int) -> None:
        self._prompt_width = prompt_width

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        made = input_ids.shape[1] - self._prompt_width
        stop = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if made >= LOOP_TOKENS and made % 8 == 0:
            tail = input_ids[:, -LOOP_TOKENS:]
            for period in range(1, LOOP_TOKENS // 3 + 1):
                stop |= (tail[:, period:] == tail[:, :-period]).all(dim=1)
        return stop


class Sampling(NamedTuple):
    """How one reply is drawn."""

    max_tokens: int = 256
    temperature: float = 0.0
    """0 always takes the most likely token."""
    top_p: float = 1.0
    seed: int | None = None


@dataclass(slots=True, kw_only=True)
class Generated:
    """One reply."""

    text: str
    input_tokens: int
    output_tokens: int
    finish_reason: str
    """`stop` when the model ended its turn, `length` when the limit did."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Request:
    prompt: list[int]
    adapter: str
    sampling: Sampling
    future: Future[Generated] = field(default_factory=Future)


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
        except (OSError, ValueError, KeyError, RuntimeError) as exc:
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
        self._requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._model_lock = threading.Lock()
        self._crowded = False
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
        with self._model_lock:
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
            self._adapters.add(name)
        return name

    def encode(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """Render messages by the model's chat template and encode them."""
        encoded = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)
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
        request = _Request(
            prompt=prompt, adapter=adapter, sampling=sampling._replace(max_tokens=min(sampling.max_tokens, room))
        )
        self._requests.put(request)
        return request.future

    # -- the worker ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        waiting: list[_Request] = []
        while True:
            if not waiting:
                waiting.append(self._requests.get())
            self._gather(waiting)
            batch = _next_batch(waiting)
            self._crowded = len(waiting) > 1
            waiting = [r for r in waiting if r not in batch]
            batch = [r for r in batch if r.future.set_running_or_notify_cancel()]
            try:
                with self._model_lock:
                    replies = self._generate(batch) if batch else []
            except Exception as exc:  # handed to the callers: the worker must outlive any batch
                for request in batch:
                    request.future.set_exception(exc)
            else:
                for request, reply in zip(batch, replies, strict=True):
                    request.future.set_result(reply)

    def _gather(self, waiting: list[_Request]) -> None:
        """Collect requests until it is quiet: longer where the last batch showed that several callers are at work."""
        quiet = QUIET_SECONDS if self._crowded else QUIET_SECONDS / 10
        latest = time.monotonic() + 5 * QUIET_SECONDS
        while len(waiting) < MAX_BATCH * 4 and time.monotonic() < latest:
            try:
                waiting.append(self._requests.get(timeout=quiet))
            except queue.Empty:
                return

    @torch.inference_mode()
    def _generate(self, batch: list[_Request]) -> list[Generated]:
        pad = self.tokenizer.pad_token_id
        longest = max(len(r.prompt) for r in batch)
        width = min(-(-longest // PAD_TO) * PAD_TO, max(longest, self.window - batch[0].sampling.max_tokens))
        ids = torch.full((len(batch), width), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, request in enumerate(batch):
            ids[i, width - len(request.prompt) :] = torch.tensor(request.prompt)
            mask[i, width - len(request.prompt) :] = 1
        sampling = batch[0].sampling
        options: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if sampling.temperature > 0:
            options = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
            torch.manual_seed(sampling.seed if sampling.seed is not None else torch.seed())
        device = self._model.device
        with self._chosen(batch[0].adapter):
            out = self._model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=sampling.max_tokens,
                pad_token_id=pad,
                stopping_criteria=StoppingCriteriaList([_Looping(width)]),
                **options,
            )
        return [self._read(row, request) for row, request in zip(out[:, width:].tolist(), batch, strict=True)]

    def _chosen(self, adapter: str) -> contextlib.AbstractContextManager[Any]:
        if not isinstance(self._model, PeftModel):
            return contextlib.nullcontext()
        if not adapter:
            bare: contextlib.AbstractContextManager[Any] = self._model.disable_adapter()
            return bare
        self._model.set_adapter(adapter)
        return contextlib.nullcontext()

    def _read(self, tokens: list[int], request: _Request) -> Generated:
        ends = self._model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        stop = next((i for i, token in enumerate(tokens) if token in ends), None)
        kept = tokens[:stop]
        while stop is None and kept and kept[-1] == self.tokenizer.pad_token_id:
            kept.pop()  # the row ended before the batch did
        return Generated(
            text=self.tokenizer.decode(kept, skip_special_tokens=True),
            input_tokens=len(request.prompt),
            output_tokens=len(kept) + (stop is not None),
            finish_reason="length" if stop is None else "stop",
        )


def _next_batch(waiting: list[_Request]) -> list[_Request]:
    """Take the first request and what may share its batch; a seeded draw is alone, or it would not repeat."""
    first = waiting[0]
    if first.sampling.temperature > 0 and first.sampling.seed is not None:
        return [first]
    return [r for r in waiting if (r.adapter, r.sampling) == (first.adapter, first.sampling)][:MAX_BATCH]


_engines: dict[tuple[str, str | None], Engine] = {}
_engines_lock = threading.Lock()


def shared_engine(base: str, *, dtype: str | None = None) -> Engine:
    """Return the process's engine of a base: all nodes of all graphs share one copy of its weights."""
    key = (str(Path(resolve_base(base)).resolve()) if base == "nano" or Path(base).is_dir() else base, dtype)
    with _engines_lock:
        if key not in _engines:
            _engines[key] = Engine(base, dtype=dtype)
        return _engines[key]
