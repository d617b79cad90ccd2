"""Small general instructions made by this project: no agent, no environment, one right answer each.

They stand in for the general instructions of the paper's mix where no file of them is at hand: short enough for a
model of two million parameters, and so different from an agent's turns that training on them alone teaches no acting.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from langchain_core.language_models import BaseChatModel

from cmat_graph.splits import is_validation

HELD_OUT = 0.2
"""Of the instructions, those that no training sees."""
WORDS = (
    "apple boat cloud door east farm garden house island juice kite lamp moon night ocean paper queen river stone "
    "table under valley water yellow zebra bread chair dream earth flower glass horse iron jacket king leaf music "
    "north orange pencil quiet rain silver tree uncle voice winter young zero"
).split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction with its answer."""

    prompt: str
    answer: str

    @property
    def id(self) -> str:
        """What it is known by: it is short enough to be its own name."""
        return self.prompt


def make_instructions(count: int, *, seed: int = 0, held_out: bool = False) -> list[Instruction]:
    """Make instructions, each once.

    Args:
        count: How many.
        seed: Same seed, same instructions.
        held_out: Make those that no training sees; which they are is decided by their text, whatever the seed.

    Example:
        >>> make_instructions(1)
        [Instruction(prompt='Write in capitals: valley door', answer='VALLEY DOOR')]

    """
    rng = random.Random(f"general:{seed}")
    made: dict[str, Instruction] = {}
    for maker in itertools.cycle(_MAKERS):
        if len(made) >= count:
            break
        found = maker(rng)
        if is_validation(found.prompt, HELD_OUT) == held_out:
            made.setdefault(found.prompt, found)
    return list(made.values())


def write_instructions(instructions: Iterable[Instruction], file: Path) -> None:
    """Write instructions as JSONL with `messages`, as `HarvestSettings.general` takes them."""
    with file.open("w", encoding="utf-8") as lines:
        for each in instructions:
            messages = [{"role": "user", "content": each.prompt}, {"role": "assistant", "content": each.answer}]
            lines.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


def follow(model: BaseChatModel, instructions: Iterable[Instruction], *, concurrency: int = 16) -> dict[str, float]:
    """Ask a model; return 1 for each instruction that it followed to the letter, else 0, by its id."""
    asked = list(instructions)
    replies = model.batch([each.prompt for each in asked], config={"max_concurrency": concurrency})
    return {
        each.id: float(_plain(str(reply.text)) == _plain(each.answer))
        for each, reply in zip(asked, replies, strict=True)
    }


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _words(rng: random.Random, low: int = 2, high: int = 4) -> list[str]:
    return rng.sample(WORDS, rng.randint(low, high))


def _copy(rng: random.Random) -> Instruction:
    words = " ".join(_words(rng))
    return Instruction(prompt=rng.choice(("Repeat: {}", "Say this again: {}")).format(words), answer=words)


def _upper(rng: random.Random) -> Instruction:
    words = " ".join(_words(rng, 1, 2))
    return Instruction(prompt=f"Write in capitals: {words}", answer=words.upper())


def _reverse(rng: random.Random) -> Instruction:
    words = _words(rng, 2, 3)
    return Instruction(prompt=f"Turn the order of the words round: {' '.join(words)}", answer=" ".join(words[::-1]))


def _sort(rng: random.Random) -> Instruction:
    words = _words(rng, 2, 3)
    return Instruction(prompt=f"Sort these words: {', '.join(words)}", answer=", ".join(sorted(words)))


def _pick(rng: random.Random) -> Instruction:
    words = _words(rng, 3, 4)
    place, at = rng.choice((("first", 0), ("last", -1)))
    return Instruction(prompt=f"What is the {place} word of: {' '.join(words)}?", answer=words[at])


def _count(rng: random.Random) -> Instruction:
    words = _words(rng, 2, 5)
    return Instruction(prompt=f"How many words are these: {' '.join(words)}?", answer=str(len(words)))


def _add(rng: random.Random) -> Instruction:
    a, b = rng.randint(1, 20), rng.randint(1, 20)
    return Instruction(prompt=rng.choice(("{} + {} =", "Add {} and {}.")).format(a, b), answer=str(a + b))


def _larger(rng: random.Random) -> Instruction:
    a, b = rng.sample(range(1, 100), 2)
    return Instruction(prompt=f"Which is larger, {a} or {b}?", answer=str(max(a, b)))


_MAKERS: tuple[Callable[[random.Random], Instruction], ...] = (
    _copy,
    _upper,
    _reverse,
    _sort,
    _pick,
    _count,
    _add,
    _larger,
)
