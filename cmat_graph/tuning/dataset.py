"""What a node is trained on: conversations with a weight on each message, pairs, and judged replies, in one folder.

dataset/manifest.json           counts in and out of every stage, reasons, hashes, settings
dataset/sft.train.jsonl         conversations (`Example`)
dataset/pairs.train.jsonl       a better and a worse reply to one prompt (`Pair`)
dataset/judged.train.jsonl      replies with a verdict (`Judged`)
dataset/*.validation.jsonl      the same of the tasks that are kept to choose by
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired, TypeVar

from cmat_graph.errors import DatasetError
from cmat_graph.types import Message

MANIFEST = "manifest.json"
Part = Literal["train", "validation"]
Kind = Literal["turn", "tool_turn", "repair", "verdict", "correction", "reflection", "general"]
"""What an example teaches: a step towards a success, such a step with tool calls, the step that mended a failure, a
checker's verdict, a checker's verdict with the mended action, a lesson, or an instruction that is about no agent."""
Contrast = Literal["rejected", "failed", "verdict", "minority", "repaired", "human"]
"""Why a pair's worse reply is worse: it was sent back, the environment refused it, or the verdict was wrong; in a
debate it missed the vote's answer, its own agent mended it in the last round, or a person said so."""


class WeightedMessage(Message):
    """A message with its share in the loss."""

    weight: NotRequired[float]
    """0 or absent: context only. Only an assistant's message may weigh more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a row comes from."""

    task_id: str
    """Rows of one task are never in both parts."""
    task_hash: str = ""
    """Hash of the task's text, by which leaks are found whatever the ids."""
    episodes: tuple[str, ...] = ()
    env: str = ""
    node: str = "assistant"
    source: Literal["agent", "general"] = "agent"
    """Which family of instructions it belongs to (formula F15)."""
    augmented: str = ""
    """How it was made from another row; empty for what was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A conversation in which some assistant messages are to be learned."""

    messages: list[WeightedMessage]
    tools: list[dict[str, Any]] = field(default_factory=list)
    """The tools that the model could call, in OpenAI's form."""
    kind: Kind = "turn"
    origin: Origin

    @property
    def targets(self) -> list[int]:
        """The positions of the messages that carry loss."""
        return [at for at, message in enumerate(self.messages) if message.get("weight", 0.0) > 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two replies to one prompt, one better than the other."""

    prompt: list[Message]
    chosen: Message
    rejected: Message
    tools: list[dict[str, Any]] = field(default_factory=list)
    contrast: Contrast
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A reply to a prompt, and whether it was good."""

    prompt: list[Message]
    completion: Message
    good: bool
    tools: list[dict[str, Any]] = field(default_factory=list)
    origin: Origin


Row = Example | Pair | Judged
R = TypeVar("R", Example, Pair, Judged)
FILES: dict[type[Row], str] = {Example: "sft", Pair: "pairs", Judged: "judged"}


class Dataset:
    """A dataset folder, read row by row: memory stays flat however many there are.

    Raises:
        DatasetError: The folder holds no readable manifest.

    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            told = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            if not isinstance(told, dict) or not isinstance(told.get("rows"), dict) or "sha256" not in told:
                raise ValueError(f"{MANIFEST} lacks `rows` and `sha256`")
        except (OSError, ValueError, RecursionError) as exc:
            raise DatasetError(f"no dataset in {folder}: {exc}; make one with: cmat-graph dataset make") from exc
        self.manifest: dict[str, Any] = told

    @property
    def hash(self) -> str:
        """SHA-256 of what is trained on; where it came from does not count, nor does its order.

        Of files that were changed by hand since it was made, it is that of the files.
        """
        known = self.manifest.get("files", {})
        now = hash_files(self.folder)
        if not known or now == known:
            return str(self.manifest["sha256"])
        return hashlib.sha256(json.dumps(now, sort_keys=True).encode()).hexdigest()

    def examples(self, part: Part = "train") -> Iterator[Example]:
        """Read the conversations."""
        return self._read(Example, part)

    def pairs(self, part: Part = "train") -> Iterator[Pair]:
        """Read the preference pairs."""
        return self._read(Pair, part)

    def judged(self, part: Part = "train") -> Iterator[Judged]:
        """Read the judged replies."""
        return self._read(Judged, part)

    def count(self, row: type[Row], part: Part = "train") -> int:
        """Return how many rows of a kind there are."""
        return int(self.manifest["rows"].get(f"{FILES[row]}.{part}", 0))

    def _read(self, row: type[R], part: Part) -> Iterator[R]:
        file = self.folder / f"{FILES[row]}.{part}.jsonl"
        if not file.is_file():
            return
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    found = from_row(row, json.loads(line.decode("utf-8")))
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
                    raise DatasetError(
                        f"{file}, line {number}: {type(exc).__name__} {exc}; mend it, or make the dataset anew"
                    ) from exc
                yield found


def to_row(row: Row) -> dict[str, Any]:
    """Return a row as it stands in the file."""
    return asdict(row)


def from_row(row: type[R], values: dict[str, Any]) -> R:
    """Read a row back.

    Raises:
        ValueError: A message is none, or weighs what no message can.
        TypeError, KeyError: A field lacks, or is too many.

    """
    origin = values["origin"]
    read: Any = row(**{**values, "origin": Origin(**{**origin, "episodes": tuple(origin["episodes"])})})
    messages: list[Any] = [*read.messages] if row is Example else [*read.prompt]
    if row is not Example:
        messages += [read.chosen, read.rejected] if row is Pair else [read.completion]
    for at, message in enumerate(messages):
        _check(message, f"message {at}")
    if not isinstance(read.tools, list) or not all(isinstance(tool, Mapping) for tool in read.tools):
        raise ValueError("tools is no list of objects")
    found: R = read
    return found


def _check(message: Mapping[str, Any], name: str) -> None:
    if not isinstance(message["role"], str) or not isinstance(message["content"], str):
        raise ValueError(f"{name}: role and content are texts")
    message["content"].encode()  # half a surrogate pair fails here, as a ValueError
    weight = message.get("weight", 0.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise ValueError(f"{name}: a weight is a number from 0 up, not {weight!r}")
    if weight and message["role"] != "assistant":
        raise ValueError(f"{name} weighs {weight}, and only an assistant's can be learned; take its weight out")
    for call in message.get("tool_calls", ()):
        if not isinstance(call["name"], str) or not isinstance(call["args"], Mapping) or "id" not in call:
            raise ValueError(f"{name}: a call has a name, arguments as an object, and an id")


def hash_row(row: Row) -> str:
    """Hash what a row teaches, and not where it came from."""
    taught = {name: value for name, value in asdict(row).items() if name not in ("origin", "kind", "contrast")}
    return hashlib.sha256(json.dumps(taught, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """Hash the files of training rows in a folder, for the manifest."""
    found = {}
    for name in FILES.values():
        file = folder / f"{name}.train.jsonl"
        if file.is_file():
            with file.open("rb") as rows:
                found[file.name] = hashlib.file_digest(rows, "sha256").hexdigest()
    return found


def hash_task(text: str) -> str:
    """Hash a task's text, whatever its spaces and capitals."""
    return hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest()[:16]
