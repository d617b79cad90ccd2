"""The marks by which a base tells turns apart must come from its chat template alone, never from somebody's text.

A tokenizer reads `<|im_end|>` in a database's cell as the end of a turn: whoever wrote the cell could then speak as the
assistant. So such marks are broken up wherever they stand in a message, for serving and for training alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

_SAMPLE = [{"role": "user", "content": "sample"}]
_NAMES = {"role", "type"}
_known: WeakKeyDictionary[Any, tuple[Any, re.Pattern[str]]] = WeakKeyDictionary()


def defused(messages: Sequence[Mapping[str, Any]], tokenizer: Any) -> list[dict[str, Any]]:
    """Return messages, in the form that chat templates take, in which no text holds a mark of the tokenizer.

    A space goes in after a mark's first character: `<|im_end|>` becomes `< |im_end|>`.

    Args:
        messages: Dicts with `role` and `content`; also a list of tools.
        tokenizer: The base's own.

    """
    marks = _marks(tokenizer)
    return [_walk(message, marks) for message in messages]


def _walk(value: Any, marks: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        while (broken := marks.sub(lambda found: f"{found[0][0]} {found[0][1:]}", value)) != value:
            value = broken
        return value
    if isinstance(value, Mapping):
        return {
            (key if key in _NAMES else _walk(key, marks)): (each if key in _NAMES else _walk(each, marks))
            for key, each in value.items()
        }
    return [_walk(each, marks) for each in value] if isinstance(value, list | tuple) else value


def _marks(tokenizer: Any) -> re.Pattern[str]:
    template = tokenizer.chat_template
    if tokenizer not in _known or _known[tokenizer][0] != template:
        added = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
        turn = str(tokenizer.apply_chat_template(_SAMPLE, tokenize=False, add_generation_prompt=True))
        marks = [text for text, special in added.items() if (special or text in turn) and len(text.strip()) > 1]
        pattern = "|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True)) or "(?!)"
        _known[tokenizer] = (template, re.compile(pattern))
    return _known[tokenizer][1]
