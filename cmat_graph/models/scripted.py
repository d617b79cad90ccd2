"""An engine that answers from a script, behind the same seam as the real one: for tests of what is built on it.

It reads no weights, but its tokens are real: TinyAgent-nano's tokenizer, with a chat template that knows system
messages, tools and their results (Hermes). What a constraint forbids, a script cannot answer either.
"""

from __future__ import annotations

import asyncio
import copy
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cmat_graph.adapters import AdapterCard
from cmat_graph.bases import NANO_FOLDER
from cmat_graph.errors import (
    AdapterMismatchError,
    AdapterNotFoundError,
    EngineBusyError,
    EngineError,
    PromptTooLongError,
)
from cmat_graph.models.decoding.rows import Pending, Reply
from cmat_graph.models.decoding.sampling import Sampling
from cmat_graph.models.decoding.text import Text

HERMES_TEMPLATE = """
{%- if tools or (messages and messages[0].role == 'system') %}<|system|>
{%- if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}
{%- if tools %}
<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools>
Answer with <tool_call>
{"name": ..., "arguments": ...}
</tool_call> to call one.{% endif %}<|end|>{% endif %}
{%- for message in messages %}{% if message.role == 'user' %}<|user|>{{ message.content }}<|end|>
{%- elif message.role == 'assistant' %}<|assistant|>{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|end|>
{%- elif message.role == 'tool' %}<|user|><tool_response>{{ message.content }}</tool_response><|end|>
{%- endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a scripted engine is asked."""

    prompt: list[int]
    messages: Sequence[Mapping[str, Any]]
    """The conversation as it was encoded; empty when the prompt was not made by `encode`."""
    template: Mapping[str, Any]
    """What else the chat template was given, such as `tools`."""
    adapter: str
    """The key of the adapter; empty for the bare base."""
    sampling: Sampling
    tokenizer: Any

    def allows(self, answer: str) -> bool:
        """Tell whether the request's constraint allows this answer."""
        constraint: Any = self.sampling.constraint
        return constraint is None or constraint.allows(self.tokenizer.encode(answer, add_special_tokens=False))


Answer = str | BaseException
Script = Sequence[Answer] | Callable[[Question], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedAdapter:
    """An adapter that a scripted engine knows."""

    name: str
    key: str
    card: AdapterCard
    bytes: int = 0


class ScriptedEngine:
    """Answer prompts from a script.

    Args:
        script: Answers, one after another, of which the last repeats; or a function of the `Question`. An exception is
            raised by the request. Special tokens in an answer are such.
        base: The base's name.
        window: Tokens a prompt and its reply may take together.
        chat_template: A Jinja chat template.
        tokenizer: Another tokenizer than nano's, with its own chat template.
        probability: How likely each token is said to be.
        seconds: How long each token takes.
        capacity: Requests at one time; the next one waits.

    Example:
        >>> engine = ScriptedEngine(["Hello."])
        >>> engine.submit(engine.encode([{"role": "user", "content": "Hi"}])).result().text
        'Hello.'

    """

    def __init__(
        self,
        script: Script,
        *,
        base: str = "scripted",
        window: int = 8192,
        chat_template: str = HERMES_TEMPLATE,
        tokenizer: Any = None,
        probability: float = 0.9,
        seconds: float = 0.0,
        capacity: int = 64,
    ) -> None:
        self.base = base
        self.base_hash = ""
        self.window = window
        self.tokenizer: Any = tokenizer or _nano_tokenizer(chat_template)
        self.ends = frozenset({int(self.tokenizer.eos_token_id)})
        self.questions: list[Question] = []
        """What was asked so far."""
        self._script = script
        self._probability = probability
        self._seconds = seconds
        self._capacity = capacity
        self._room = threading.Semaphore(capacity)
        self._lock = threading.Lock()
        self._encoded: OrderedDict[tuple[int, ...], tuple[list[Mapping[str, Any]], Mapping[str, Any]]] = OrderedDict()
        self._adapters: dict[str, ScriptedAdapter] = {}
        self._cards: dict[str, AdapterCard] = {}

    def encode(self, messages: Sequence[Mapping[str, Any]], **template: Any) -> list[int]:
        """Render messages by the chat template and encode them."""
        with self._lock:
            encoded = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages], add_generation_prompt=True, return_dict=True, **template
            )
            prompt = list(encoded["input_ids"])
            self._encoded[tuple(prompt)] = (list(messages), template)
            if len(self._encoded) > 1000:
                self._encoded.popitem(last=False)
        return prompt

    def submit(
        self,
        prompt: list[int],
        *,
        adapter: str = "",
        sampling: Sampling = Sampling(),
        stream: bool = False,
        timeout: float | None = None,
    ) -> Pending:
        """Queue a prompt; see `Engine.submit`."""
        question = self._question(prompt, adapter, sampling)
        if not (self._room.acquire(timeout=timeout) if timeout else self._room.acquire(blocking=timeout is None)):
            raise EngineBusyError(f"{self._capacity} requests are under way; ask again later")
        return self._begin(question, stream)

    async def asubmit(
        self, prompt: list[int], *, adapter: str = "", sampling: Sampling = Sampling(), stream: bool = False
    ) -> Pending:
        """Queue a prompt, awaiting room; see `submit`."""
        question = self._question(prompt, adapter, sampling)
        while not self._room.acquire(blocking=False):
            await asyncio.sleep(0.002)
        return self._begin(question, stream)

    def load_adapter(self, card: AdapterCard, *, name: str = "") -> str:
        """Let a name mean a card from now on; return its key."""
        if card.base != self.base:
            raise AdapterMismatchError(f"adapter {card.id} was trained on {card.base}, not on {self.base}")
        key = f"{card.id}@{card.weights_hash[:12]}"
        with self._lock:
            self._cards[key] = card
            self._adapters[name or card.id] = ScriptedAdapter(name=name or card.id, key=key, card=card)
        return key

    def unload_adapter(self, name: str) -> None:
        """Forget a name."""
        if self._adapters.pop(name, None) is None:
            raise self._unknown(name)

    def adapters(self) -> list[ScriptedAdapter]:
        """Return the names that answer."""
        return list(self._adapters.values())

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _unknown(self, name: str) -> AdapterNotFoundError:
        return AdapterNotFoundError(f"adapter {name!r} is not loaded; known: {', '.join(self._adapters) or 'none'}")

    def _question(self, prompt: list[int], adapter: str, sampling: Sampling) -> Question:
        key = self._adapters[adapter].key if adapter in self._adapters else adapter
        if key and key not in self._cards:
            raise self._unknown(adapter)
        room = self.window - len(prompt)
        if room < 1:
            raise PromptTooLongError(f"the prompt of {len(prompt):,} tokens fills the window of {self.window:,}")
        messages, template = self._encoded.get(tuple(prompt), ([], {}))
        return Question(
            prompt=prompt,
            messages=messages,
            template=template,
            adapter=key,
            sampling=sampling._replace(max_tokens=min(sampling.max_tokens, room)),
            tokenizer=self.tokenizer,
        )

    def _begin(self, question: Question, stream: bool) -> Pending:
        pending = Pending(stream=stream)
        with self._lock:
            asked = len(self.questions)
            self.questions.append(question)
        threading.Thread(target=self._answer, args=(question, asked, pending), daemon=True).start()
        return pending

    def _answer(self, question: Question, asked: int, pending: Pending) -> None:
        try:
            answer = (
                self._script(question) if callable(self._script) else self._script[min(asked, len(self._script) - 1)]
            )
            if isinstance(answer, BaseException):
                raise answer
            pending.end(self._write(question, answer, pending))
        except BaseException as exc:  # handed to who waits for it
            pending.end(exc)
        finally:
            self._room.release()

    def _write(self, question: Question, answer: str, pending: Pending) -> Reply:
        if not question.allows(answer):
            raise EngineError(f"the script's answer breaks the constraint: {answer!r}")
        sampling, text = question.sampling, Text(self.tokenizer, question.sampling.stop)
        tokens: list[int] = []
        reason = ""
        for token in [*self.tokenizer.encode(answer, add_special_tokens=False), *self.ends]:
            time.sleep(self._seconds)
            tokens.append(token)
            if token in self.ends or text.add(token):
                reason = "stop"
            elif len(tokens) >= sampling.max_tokens:
                reason = "length"
            if piece := text.take(last=bool(reason)):
                pending.tell(piece)
            if reason or pending.cancelled:
                break
        drawn = tokens[:-1] if tokens[-1] in self.ends else tokens
        plain = str(self.tokenizer.decode(drawn, skip_special_tokens=True))
        for mark in sampling.stop:
            plain = plain.split(mark, 1)[0]
        return Reply(
            text=plain,
            raw=text.text,
            tokens=tokens,
            logprobs=[math.log(self._probability)] * len(tokens),
            input_tokens=len(question.prompt),
            output_tokens=len(tokens),
            finish_reason=reason or "stop",
        )


@lru_cache(maxsize=1)
def _nano() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(NANO_FOLDER))


def _nano_tokenizer(chat_template: str) -> Any:
    tokenizer = copy.deepcopy(_nano())
    tokenizer.chat_template = chat_template
    tokenizer.model_max_length = 1_000_000
    return tokenizer
