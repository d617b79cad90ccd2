"""A reply as text while it grows: whole characters only, and never past a stop string."""

from __future__ import annotations

from typing import Any

CUT = "�"
"""What a tokenizer decodes half a character to."""


class Text:
    """Decode a reply token by token.

    Args:
        tokenizer: The model's own.
        stop: The text ends before the first of these.

    """

    def __init__(self, tokenizer: Any, stop: tuple[str, ...] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(mark for mark in stop if mark)
        self._window: list[int] = []
        self._seen = 0  # characters of the window's text that are in `text` already
        self._told = 0
        self.text = ""
        self.stopped = False

    def add(self, token: int) -> bool:
        """Add a token; tell whether a stop string has ended the text."""
        self._window.append(token)
        decoded = self._decode(self._window)
        if decoded.endswith(CUT) and len(self._window) < 16:
            return False
        self._grow(decoded[self._seen :])
        # Some tokenizers join words by what stood before: the last token stays in the window.
        self._window = self._window[-1:]
        self._seen = len(self._decode(self._window))
        return self.stopped

    def take(self, *, last: bool = False) -> str:
        """Return what may be shown and was not yet; what could become a stop string waits."""
        if last and not self.stopped:
            self._grow(self._decode(self._window)[self._seen :])
            self._window, self._seen = [], 0
        end = len(self.text) if last or self.stopped else len(self.text) - self._doubtful()
        piece = self.text[self._told : end]
        self._told = max(self._told, end)
        return piece

    def _grow(self, more: str) -> None:
        begin = max(0, len(self.text) - max((len(mark) for mark in self._stop), default=1) + 1)
        self.text += more
        found = [place for mark in self._stop if (place := self.text.find(mark, begin)) >= 0]
        if found:
            self.text = self.text[: min(found)]
            self.stopped = True

    def _doubtful(self) -> int:
        """Return how many characters at the end might begin a stop string."""
        longest = 0
        for mark in self._stop:
            for length in range(min(len(mark) - 1, len(self.text)), longest, -1):
                if self.text.endswith(mark[:length]):
                    longest = length
                    break
        return longest

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))
