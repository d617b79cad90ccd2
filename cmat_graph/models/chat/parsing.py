"""A reply cut into reasoning, content and tool calls, while it comes or at once: both take the same way."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from langchain_core.messages import InvalidToolCall, ToolCall

from cmat_graph.rendering.formats import HERMES, ChatFormat, read_bare

THINK, THOUGHT = "<think>", "</think>"


@dataclass(slots=True)
class Parsed:
    """A reply, or a piece of one."""

    content: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    invalid: list[InvalidToolCall] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning or self.calls or self.invalid)


class Marks:
    """Strings to look for in a text that comes in pieces."""

    def __init__(self, marks: Iterable[str]) -> None:
        self._marks = sorted(set(marks), key=len, reverse=True)
        self._find = re.compile("|".join(map(re.escape, self._marks)) or r"(?!)")
        self._begin = {mark[:size] for mark in self._marks for size in range(1, len(mark))}
        self._longest = max(map(len, self._marks), default=0)

    def next(self, text: str) -> tuple[int, int, str]:
        """Return where the first mark starts and ends, and which it is; else where one might begin, twice."""
        if found := self._find.search(text):
            return found.start(), found.end(), found[0]
        for at in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[at:] in self._begin:
                return at, at, ""
        return len(text), len(text), ""

    def remove(self, text: str) -> str:
        """Return the text without any mark."""
        return self._find.sub("", text)


_CLOSING = Marks([THOUGHT])


@lru_cache(maxsize=64)
def _marks(special: frozenset[str], opening: str = "") -> Marks:
    """Keep what is looked for in a model's replies: some have thousands of special tokens."""
    return Marks(filter(None, [*special, opening]))


class ReplyParser:
    """Cut a reply into its parts as it comes.

    Text flows through at once, but for what may yet turn out to be a mark, and white space before one. From a call on,
    everything is held until the end.

    Args:
        form: How the model writes calls.
        tools: Names of the tools it may call; none, and calls are only text.
        thinking: Whether the prompt has already opened the model's reasoning.
        special: The tokenizer's special tokens, which are no part of the text.

    """

    def __init__(
        self,
        form: ChatFormat = HERMES,
        *,
        tools: Collection[str] | None = None,
        thinking: bool = False,
        special: Collection[str] = (),
    ) -> None:
        self._form = form
        self._tools = frozenset(tools) if tools else None
        self._special = _marks(frozenset(special))
        self._marks = _marks(frozenset(special), form.open if tools else "")
        self._state = "reasoning" if thinking else "start"
        self._held = ""
        """What may be the beginning of a mark."""
        self._spaces: list[str] = []
        """White space that is only let go when something follows it."""
        self._trim = thinking
        """True while white space is left out, at the start of a part."""
        self._wrote = False
        self._calls: list[str] = []

    def feed(self, piece: str) -> Parsed:
        """Take the next piece of the reply; return what it settles."""
        out = Parsed()
        if self._state == "calls":
            self._calls.append(piece)
            return out
        self._held += piece
        while getattr(self, f"_{self._state}")(out):
            pass
        return out

    def finish(self) -> Parsed:
        """Return the rest, when no more comes."""
        out = Parsed()
        if self._state == "calls":
            self._read("".join(self._calls), out)
        elif self._state == "reasoning":
            out.reasoning = self._flow(self._held)
        else:
            out.content = self._flow(self._held) + "".join(self._spaces)
        return out

    # -- one step in each state: true when more can be done at once -----------------------------------------------

    def _start(self, out: Parsed) -> bool:
        text = self._held.lstrip()
        if not self._trim:
            self._spaces.append(self._held[: len(self._held) - len(text)])
        self._held = text
        if text.startswith(THINK) and not self._trim:
            self._state, self._held, self._trim, self._spaces = "reasoning", text[len(THINK) :], True, []
        elif THINK.startswith(text) and (not self._trim or not text):
            return False
        elif self._tools and text.startswith("{"):
            self._hold(text)
            return False
        else:
            self._state = "content"
        return True

    def _reasoning(self, out: Parsed) -> bool:
        start, end, found = _CLOSING.next(self._held)
        out.reasoning += self._flow(self._held[:start])
        self._held = self._held[end:]
        if found:
            self._state, self._trim, self._spaces = "start", True, []
        return bool(found)

    def _content(self, out: Parsed) -> bool:
        start, end, found = self._marks.next(self._held)
        out.content += self._flow(self._held[:start])
        self._wrote = self._wrote or bool(out.content)
        if self._tools and found == self._form.open:
            self._hold(self._held[start:])
            return False
        self._held = self._held[end:]
        return bool(found)

    def _hold(self, text: str) -> None:
        self._state, self._calls, self._held = "calls", [text], ""

    # -------------------------------------------------------------------------------------------------------------

    def _flow(self, text: str) -> str:
        """Return the text up to its last white space, with the white space that was kept before it."""
        if self._trim:
            text = text.lstrip()
        body = text.rstrip()
        if not body:
            self._spaces.append(text)
            return ""
        out = "".join(self._spaces) + body
        self._spaces, self._trim = [text[len(body) :]], False
        return out

    def _read(self, text: str, out: Parsed) -> None:
        """Read the calls in what was held; what is none is content."""
        assert self._tools is not None
        if self._form.open in text:
            out.calls, out.invalid, around = self._form.read(text)
            around = self._special.remove(around)
            out.content = f"\n{around}" if around and self._wrote else around
        else:
            out.calls = read_bare(text, self._tools)
            if not out.calls:
                out.content = self._flow(self._special.remove(text)) + "".join(self._spaces)


def parse_reply(raw: str, parser: ReplyParser) -> Parsed:
    """Cut a whole reply at once.

    Example:
        >>> parse_reply("<think>Easy.</think>42", ReplyParser(HERMES)).content
        '42'

    """
    first, rest = parser.feed(raw), parser.finish()
    return Parsed(first.content + rest.content, first.reasoning + rest.reasoning, rest.calls, rest.invalid)
