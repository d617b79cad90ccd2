"""From a conversation to rows of tokens: what a model is served with as context, what it shall answer as target.

A prompt is rendered by the same functions as for serving (`rendering`), so that the bytes before a target are those
that the model will see. What is learned of a reply is what the template writes for it, up to and with the mark that
ends the turn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError

from cmat_graph.errors import DatasetError
from cmat_graph.rendering.marks import defused
from cmat_graph.rendering.prompt import arrange, to_chat_dict
from cmat_graph.rendering.template import ChatDict, study
from cmat_graph.tuning.dataset import Example, WeightedMessage
from cmat_graph.types import Message

THINK, THOUGHT = "<think>", "</think>"
_SAMPLE = {"role": "assistant", "content": "sample answer"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRow:
    """One sequence to train on."""

    ids: list[int]
    weights: list[float]
    """What predicting the token at the same place weighs; 0 for context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRows:
    """What became of one example."""

    rows: list[EncodedRow] = field(default_factory=list)
    targets: int = 0
    """Replies that are learned."""
    too_long: int = 0
    """Replies left out, since they and their prompt are longer than the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A prompt and the reply to it, as text and as tokens."""

    prompt: str
    """Exactly what serving renders."""
    reply: str
    """What the template writes for the reply, with the mark that ends the turn."""
    prompt_ids: list[int]
    reply_ids: list[int]

    @property
    def ids(self) -> list[int]:
        """All tokens."""
        return self.prompt_ids + self.reply_ids


def encode(
    example: Example,
    tokenizer: Any,
    *,
    limit: int,
    join: bool = True,
    ends: Collection[int] = (),
    thinking: bool | None = None,
) -> EncodedRows:
    """Turn a conversation into rows in which each token of a target carries its message's weight.

    Targets of one conversation share a row where a later prompt begins with all tokens of an earlier prompt and its
    target: the gradient is that of separate rows, at up to 2 / (N + 1) of the tokens for N equal turns. Where it does
    not, as with templates that drop earlier reasoning, each has a row of its own. Nothing is ever cut.

    Args:
        example: What to learn.
        tokenizer: The base's own, with its chat template.
        limit: Longest row in tokens.
        join: Whether rows may be shared.
        ends: Tokens at which the model that is trained stops (`end_tokens`); empty takes the tokenizer's own.
        thinking: As the model is going to be served.

    Raises:
        DatasetError: A message weighs that is no assistant's, or the chat template refuses the conversation.

    """
    rows: list[EncodedRow] = []
    messages = _one_call_a_turn(example.messages) if study(tokenizer).calls == 1 else example.messages
    targets = too_long = 0
    for at, message in enumerate(messages):
        weight = message.get("weight", 0.0)
        if weight <= 0:
            continue
        if message["role"] != "assistant":
            raise DatasetError(
                f"message {at} of task {example.origin.task_id!r} weighs {weight} but its role is "
                f"{message['role']!r}; only an assistant's can be learned: take its weight out"
            )
        turn = encode_turn(messages[:at], message, tokenizer, tools=example.tools, ends=ends, thinking=thinking)
        if len(turn.prompt_ids) + len(turn.reply_ids) > limit:
            too_long += 1
            continue
        targets += 1
        known = rows[-1] if join and rows and turn.prompt_ids[: len(rows[-1].ids)] == rows[-1].ids else None
        weights = known.weights if known else []
        weights = weights + [0.0] * (len(turn.prompt_ids) - len(weights)) + [weight] * len(turn.reply_ids)
        rows[len(rows) - (known is not None) :] = [EncodedRow(ids=turn.ids, weights=weights)]
    return EncodedRows(rows=rows, targets=targets, too_long=too_long)


def encode_turn(
    before: Sequence[Message],
    reply: Message,
    tokenizer: Any,
    *,
    tools: Sequence[dict[str, Any]] = (),
    ends: Collection[int] = (),
    thinking: bool | None = None,
) -> Turn:
    """Render and encode a prompt with its reply, for whichever objective.

    The reply's tokens are those it has behind the prompt; where a token would reach over the border, those it has by
    itself, as they are generated.

    Raises:
        DatasetError: The chat template refuses the conversation.

    """
    prompt = render_prompt(before, tokenizer, tools=tools, thinking=thinking)
    text = _render_reply(before, reply, tokenizer, prompt=prompt, tools=tools, thinking=thinking)
    prompt_ids = to_ids(tokenizer, prompt)
    stops = frozenset(ends or _own_end(tokenizer))
    ids = _reply_ids(tokenizer, prompt, prompt_ids, text)
    place = next((i for i, token in enumerate(ids) if token in stops), None)
    if place is not None:
        ids = ids[: place + 1]
        text = _up_to(text, tokenizer.convert_ids_to_tokens(ids[-1]))
    elif stops:  # the template ends turns with a mark at which this model does not stop, or with none
        end = tokenizer.eos_token_id if tokenizer.eos_token_id in stops else min(stops)
        text = _without_marks(text, study(tokenizer).special)
        ids = [*_reply_ids(tokenizer, prompt, prompt_ids, text), end]
        text += tokenizer.convert_ids_to_tokens(end)
    return Turn(prompt=prompt, reply=text, prompt_ids=prompt_ids, reply_ids=ids)


def render_prompt(
    messages: Sequence[Message],
    tokenizer: Any,
    *,
    tools: Sequence[dict[str, Any]] = (),
    thinking: bool | None = None,
) -> str:
    """Render a prompt up to where the model answers, byte for byte as `models.chat.calls.prepare` has it encoded.

    Raises:
        DatasetError: The chat template refuses the conversation.

    """
    return _render(tokenizer, _plain(messages), tools, thinking, ask=True)


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens at which the engine ends a reply of this model."""
    config = getattr(model, "generation_config", None)
    ends = getattr(config, "eos_token_id", None)
    if ends is None:
        return _own_end(tokenizer)
    return frozenset([ends] if isinstance(ends, int) else ends)


def to_ids(tokenizer: Any, text: str) -> list[int]:
    """Encode rendered text as the engine does."""
    if tokenizer.is_fast:
        return list(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _own_end(tokenizer: Any) -> frozenset[int]:
    return frozenset() if tokenizer.eos_token_id is None else frozenset([tokenizer.eos_token_id])


def _render(
    tokenizer: Any, chat: Sequence[ChatDict], tools: Sequence[dict[str, Any]], thinking: bool | None, *, ask: bool
) -> str:
    arranged, options = arrange(tokenizer, chat, tools, thinking=thinking)
    try:
        return str(tokenizer.apply_chat_template(arranged, add_generation_prompt=ask, tokenize=False, **options))
    except TemplateError as exc:
        roles = ", ".join(str(message["role"]) for message in chat)
        raise DatasetError(
            f"the base's chat template refuses a recorded conversation ({exc}; roles: {roles}); "
            "leave that episode out, or take another base"
        ) from exc


def _render_reply(
    before: Sequence[Message],
    reply: Message,
    tokenizer: Any,
    *,
    prompt: str,
    tools: Sequence[dict[str, Any]],
    thinking: bool | None,
) -> str:
    """Render what stands behind a prompt once it is answered; it may run on past the end of the turn."""
    chat = _plain(before)
    answer = to_chat_dict(reply)
    if thinking is False:
        answer.pop("reasoning_content", None)
    whole = _render(tokenizer, [*chat, answer], tools, thinking, ask=False)
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    # The prompt says more than the template shows of a turn that is over, such as R1's open `<think>`, or Qwen's
    # closed one where thinking is off: find what a turn opens with, and go on from there.
    finished = _render(tokenizer, chat, tools, thinking, ask=False)
    sample = _render(tokenizer, [*chat, _SAMPLE], tools, thinking, ask=False)
    [safe] = defused([answer], tokenizer)
    opening = sample[len(finished) :].partition(str(_SAMPLE["content"]))[0]
    header = finished + opening
    if not (sample.startswith(finished) and whole.startswith(header) and prompt.startswith(header)):
        form = study(tokenizer).format
        calls = [form.write(**call["function"]) for call in safe.get("tool_calls", ())]
        return "\n".join(filter(None, [safe["content"], *calls]))
    told = whole[len(header) :]
    if prompt.rstrip().endswith(THINK):
        return f"{safe.get('reasoning_content', '')}\n{THOUGHT}\n\n{told}"
    return told


def _plain(messages: Iterable[Message]) -> list[ChatDict]:
    """Return what a prompt holds of messages; earlier reasoning never comes back to the model."""
    chat = [to_chat_dict(message) for message in messages]
    for message in chat:
        message.pop("reasoning_content", None)
    return chat


def _reply_ids(tokenizer: Any, prompt: str, prompt_ids: list[int], text: str) -> list[int]:
    ids = to_ids(tokenizer, prompt + text)
    return ids[len(prompt_ids) :] if ids[: len(prompt_ids)] == prompt_ids else to_ids(tokenizer, text)


def _without_marks(text: str, special: Collection[str]) -> str:
    """Take special tokens, and what space is around them, off the end."""
    text = text.rstrip()
    while mark := next((mark for mark in special if mark and text.endswith(mark)), ""):
        text = text.removesuffix(mark).rstrip()
    return text


def _up_to(text: str, mark: str) -> str:
    place = text.find(mark)
    return text[: place + len(mark)] if place >= 0 else text


def _one_call_a_turn(messages: Sequence[WeightedMessage]) -> list[WeightedMessage]:
    """Split replies with several calls as the template will: each call with its result, the next one behind it.

    A call is learned only where the results of those before it are known: the model will see them.
    """
    results = {message["tool_call_id"]: message for message in messages if message.get("tool_call_id")}
    out: list[WeightedMessage] = []
    placed: set[str] = set()
    for message in messages:
        calls = message.get("tool_calls", [])
        if len(calls) < 2:
            out += [message] if message.get("tool_call_id", "") not in placed else []
            continue
        known = True
        for number, call in enumerate(calls):
            piece: WeightedMessage = {**message, "tool_calls": [call]}
            if number:
                piece["content"] = ""
                piece.pop("reasoning", None)
            if not known:
                piece["weight"] = 0.0
            out.append(piece)
            if result := results.get(call["id"]):
                out.append(result)
                placed.add(call["id"])
            else:
                known = False
    return out
