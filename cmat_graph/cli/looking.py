"""How a dataset is shown in a terminal: what carries loss, how much there is, what two of them do not share."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cmat_graph.cli.shared import visible
from cmat_graph.tuning.dataset import Dataset, Example, Judged, Pair, Row, hash_row

Painter = Callable[[Example], Iterable[list[tuple[str, float]]]]
"""Turns an example into the rows that it is trained as: each a list of pieces of text with their weights."""
LOSS, CONTEXT, WORSE = "bold green", "dim", "red"
_WIDTH = 40
_FILES = ("examples", "pairs", "judged")


def print_row(row: Row) -> None:
    """Print a row; what carries loss is green."""
    console = Console(highlight=False)
    _head(console, row)
    if isinstance(row, Example):
        for weighted in row.messages:
            weight = weighted.get("weight", 0.0)
            _turn(console, weighted, LOSS if weight else CONTEXT, f"  weight {weight:g}" if weight else "")
    else:
        for message in row.prompt:
            _turn(console, message, CONTEXT, "")
        if isinstance(row, Pair):
            _turn(console, row.chosen, LOSS, "  chosen")
            _turn(console, row.rejected, WORSE, f"  rejected: {row.contrast}")
        else:
            _turn(console, row.completion, LOSS if row.good else WORSE, "  good" if row.good else "  not good")
    console.print()


def print_tokens(example: Example, paint: Painter) -> None:
    """Print an example as the tokens that a base is trained on; between two of them stands a dot."""
    console = Console(highlight=False)
    _head(console, example)
    for number, pieces in enumerate(paint(example), 1):
        learned = sum(1 for _, weight in pieces if weight)
        console.print(Text(f"sequence {number}: {len(pieces)} tokens, {learned} with loss", style="cyan"))
        text = Text()
        for piece, weight in pieces:
            text.append(visible(piece), style=LOSS if weight else CONTEXT)
            text.append("·", style="blue")
        console.print(text, soft_wrap=True)  # rich's own wrapping takes the spaces where a line ends
    console.print()


def token_painter(base: str) -> Painter:
    """Return what splits examples into the tokens of a base, with the weights that training gives them."""
    from cmat_graph.tuning.encoding import encode

    tokenizer, limit, ends = load_tokenizer(base)

    def paint(example: Example) -> Iterable[list[tuple[str, float]]]:
        for row in encode(example, tokenizer, limit=limit, ends=ends).rows:
            pieces = (tokenizer.decode([token]) for token in row.ids)
            yield list(zip(pieces, row.weights, strict=True))

    return paint


def load_tokenizer(base: str) -> tuple[Any, int, tuple[int, ...]]:
    """Load a base's tokenizer, how long its rows may be, and the tokens that end its replies."""
    from cmat_graph.bases import resolve_base
    from cmat_graph.errors import MissingExtraError, ModelNotFoundError

    try:
        from transformers import AutoConfig, AutoTokenizer, GenerationConfig
    except ImportError as exc:
        raise MissingExtraError.of("local", exc) from exc
    location = resolve_base(base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(location)
        limit = int(getattr(AutoConfig.from_pretrained(location), "max_position_embeddings", 0) or 2**20)
    except (OSError, ValueError) as exc:
        raise ModelNotFoundError(f"cannot load the tokenizer of {base!r}: {str(exc).splitlines()[0]}") from exc
    try:
        ended = GenerationConfig.from_pretrained(location).eos_token_id
    except OSError:
        ended = None
    found = ended if isinstance(ended, list) else [ended] if ended is not None else []
    return tokenizer, limit, tuple(found)


def count(dataset: Dataset, base: str | None = None) -> dict[str, Any]:
    """Count what a dataset holds: rows, weights by kind and environment, lengths."""
    tokenizer = load_tokenizer(base)[0] if base else None
    kinds: dict[str, dict[str, float]] = defaultdict(lambda: {"rows": 0, "targets": 0, "weight": 0.0})
    envs: dict[str, dict[str, float]] = defaultdict(lambda: {"rows": 0, "targets": 0, "weight": 0.0})
    lengths: list[int] = []
    learned = tokens = 0
    for example in dataset.examples():
        targets = [example.messages[at] for at in example.targets]
        for group in (kinds[example.kind], envs[example.origin.env]):
            group["rows"] += 1
            group["targets"] += len(targets)
            group["weight"] = round(group["weight"] + sum(m.get("weight", 0.0) for m in targets), 3)
        lengths.append(sum(len(message["content"]) for message in example.messages))
        learned += sum(len(message["content"]) for message in targets)
        if tokenizer is not None:
            tokens += sum(len(tokenizer(m["content"], add_special_tokens=False)["input_ids"]) for m in example.messages)
    contrasts = Counter(pair.contrast for pair in dataset.pairs())
    counted = {
        "sha256": dataset.hash,
        "rows": dataset.manifest["rows"],
        "tasks": dataset.manifest.get("tasks", {}),
        "kinds": dict(kinds),
        "environments": dict(envs),
        "pairs": dict(contrasts),
        "characters": {"all": sum(lengths), "learned": learned},
        "lengths": _histogram(lengths),
        "stages": dataset.manifest.get("stages", {}),
    }
    return counted | ({"tokens": tokens} if tokenizer is not None else {})


def print_counts(counted: Mapping[str, Any]) -> None:
    """Print what `count` found."""
    console = Console(highlight=False)
    rows = ", ".join(f"{name} {number:,}" for name, number in counted["rows"].items())
    tasks = ", ".join(f"{part} {number:,}" for part, number in counted["tasks"].items())
    console.print(f"rows: {rows}\ntasks: {tasks}")
    all_chars, learned = counted["characters"]["all"], counted["characters"]["learned"]
    tokens = f", {counted['tokens']:,} tokens" if "tokens" in counted else ""
    console.print(f"characters: {all_chars:,}, of which {learned:,} carry loss{tokens}\n")
    for title, groups in (("kind", counted["kinds"]), ("environment", counted["environments"])):
        table = Table(title)
        for name in ("rows", "targets", "weight"):
            table.add_column(name, justify="right")
        for name, group in sorted(groups.items()):
            table.add_row(escape(name), *(f"{group[key]:,.10g}" for key in ("rows", "targets", "weight")))
        console.print(table)
    for contrast, number in counted["pairs"].items():
        console.print(f"{number:7,} pairs: {contrast}")
    most = max((number for _, number in counted["lengths"]), default=1)
    console.print("\nlengths in characters")
    for upper, number in counted["lengths"]:
        console.print(f"{'to ' + format(upper, ','):>12} {'█' * round(_WIDTH * number / most)} {number:,}")
    console.print("\nstages")
    for stage, told in counted["stages"].items():
        given = ", ".join(f"{number:,} {what}" for what, number in told["in"].items())
        kept = ", ".join(f"{number:,} {what}" for what, number in told["out"].items())
        console.print(f"{stage:>8}: {given or '-'} -> {kept or '-'}")
        for why, number in told["left_out"].items():
            console.print(f"{number:16,} {escape(why)}", style=CONTEXT)


def compare(one: Dataset, other: Dataset) -> dict[str, Any]:
    """Find what two datasets do not share."""
    rows = {}
    for name in _FILES:
        of_one, of_other = ({hash_row(row) for row in getattr(each, name)()} for each in (one, other))
        rows[name] = {
            "both": len(of_one & of_other), "only in the first": len(of_one - of_other),
            "only in the second": len(of_other - of_one),
        }  # fmt: skip
    return {
        "same": one.hash == other.hash,
        "rows": rows,
        "settings": _unlike(one.manifest.get("settings", {}), other.manifest.get("settings", {})),
        "counts": _unlike(one.manifest.get("counts", {}), other.manifest.get("counts", {})),
    }


def print_difference(found: Mapping[str, Any], one: str, other: str) -> None:
    """Print what `compare` found."""
    console = Console(highlight=False)
    console.print("the same rows" if found["same"] else f"{escape(one)} and {escape(other)} differ", style="bold")
    table = Table("rows", "both", "only in the first", "only in the second")
    for name, told in found["rows"].items():
        table.add_row(name, *(f"{number:,}" for number in told.values()))
    console.print(table)
    for title in ("settings", "counts"):
        if found[title]:
            table = Table(title, "first", "second")
            for name, (a, b) in found[title].items():
                table.add_row(escape(name), escape(str(a)), escape(str(b)))
            console.print(table)


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = sorted(set(one) | set(other))
    return {name: [one.get(name), other.get(name)] for name in names if one.get(name) != other.get(name)}


def _head(console: Console, row: Row) -> None:
    origin = row.origin
    what = row.kind if isinstance(row, Example) else "judged" if isinstance(row, Judged) else "pair"
    made = f", {origin.augmented}" if origin.augmented else ""
    about = f"{what} of {origin.task_id or 'no task'} ({origin.env}, {origin.node}{made})"
    console.print(Text(visible(about), style="bold"))


def _turn(console: Console, message: Mapping[str, Any], style: str, note: str) -> None:
    console.print(Text(f"[{message['role']}]{note}", style="cyan"))
    if message.get("reasoning"):
        console.print(Text(visible(str(message["reasoning"])), style=f"{style} italic"))
    calls = "".join(f"\n{call['name']}({call['args']})" for call in message.get("tool_calls") or ())
    console.print(Text(visible(f"{message['content']}{calls}".strip("\n")), style=style))


def _histogram(lengths: list[int]) -> list[tuple[int, int]]:
    """Count lengths by powers of two."""
    counts = Counter(1 << max(length - 1, 1).bit_length() for length in lengths)
    return sorted(counts.items())
