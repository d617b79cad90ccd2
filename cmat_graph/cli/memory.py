"""`cmat-graph memory`: look at the lessons, judge them, and keep their store in order."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click

from cmat_graph.cli import print_json
from cmat_graph.cli.shared import console, json_option, progress, visible
from cmat_graph.errors import ConfigurationError
from cmat_graph.memory.audit import audit, is_in, lessons, prune
from cmat_graph.memory.chroma import ChromaStore, KeptItem
from cmat_graph.memory.chroma.filters import check_ttl
from cmat_graph.memory.chroma.opening import connect, open_store
from cmat_graph.memory.embeddings import load_embeddings
from cmat_graph.memory.ranking import ROOT, Lesson, Policy, label

Option = Callable[[Callable[..., Any]], Callable[..., Any]]

MANY = 10_000
"""How many of the nearest are looked through for those of one node or split in all environments."""

_PATH = click.argument("path")
_SERVER = click.option("--server", metavar="HOST:PORT", help="Chroma server that several processes share.")
_RECORDS = click.option("--records", help="SQLAlchemy URL of the items, if they are not in the folder.")


def _where(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose lessons."""
    for name, text in (("split", "Only this split's."), ("node", "Only this node's."), ("env", "Only this one's.")):
        function = click.option(f"--{name}", help=text)(function)
    return function


def _store(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says which store."""
    return _PATH(_SERVER(_RECORDS(function)))


@click.group("memory")
def command() -> None:
    """Look at the lessons, judge them, and keep their store in order. PATH is the folder given to --memory.

    \b
    Examples:
      cmat-graph memory audit reflections/
      cmat-graph memory search reflections/ "Settle order A7801"
    """


@command.command("list")
@_store
@_where
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most this many.")
@json_option()
def list_lessons(*, limit: int, as_json: bool, env: str | None, node: str | None, split: str | None, **at: Any) -> None:
    """List lessons, with what came of them.

    \b
    Example:
      cmat-graph memory list reflections/ --env database --limit 100
    """
    with _open(**at) as store:
        found = list(lessons(store, env=env, node=node, split=split))
    if as_json:
        print_json([_plain(lesson) for lesson in found[:limit]])
        return
    _print(found[:limit])
    if len(found) > limit:
        console.print(f"{len(found) - limit:,} more; see them with --limit")


@command.command("search")
@_store
@click.argument("task")
@_where
@click.option("--embeddings", help="What embedded the store, when it is not `hashing`: minilm:FOLDER.")
@click.option("--limit", type=click.IntRange(1), default=5, show_default=True, help="At most this many.")
@json_option()
def search(
    *,
    task: str,
    embeddings: str | None,
    limit: int,
    as_json: bool,
    env: str | None,
    node: str | None,
    split: str | None,
    **at: Any,
) -> None:
    """Find the lessons of the tasks most like TASK, however unlike; the graph shows those near enough.

    \b
    Example:
      cmat-graph memory search reflections/ "Settle order A7801" --env database
    """
    prefix = [ROOT]
    for name in (env, node, split):
        if name is None:
            break
        prefix.append(label(name))
    with _open(embeddings=embeddings, **at) as store:
        covered = len(prefix) > sum(name is not None for name in (env, node, split))
        items = store.search(tuple(prefix), query=task, limit=limit if covered else MANY)
    wanted = [None if name is None else label(name) for name in (env, node, split)]
    found = [Lesson.of(item) for item in items]
    found = [lesson for lesson in found if is_in(lesson.namespace, wanted)][:limit]
    if as_json:
        print_json([_plain(lesson) for lesson in found])
    else:
        _print(found)


@command.command("show")
@_store
@click.argument("key")
@json_option()
def show(*, key: str, as_json: bool, **at: Any) -> None:
    """Show one lesson whole; KEY is its key, or how it begins.

    \b
    Example:
      cmat-graph memory show reflections/ 3f2a
    """
    with _open(**at) as store:
        lesson = _find(store, key)
    if as_json:
        print_json(_plain(lesson))
        return
    for name, value in _plain(lesson).items():
        if value not in ("", None):
            click.echo(f"{name:>10}  {visible(str(value))}")


@command.command("export")
@_store
@click.option("--output", default="-", show_default=True, help="File to write; - is standard output.")
def export(*, output: str, **at: Any) -> None:
    """Write every item of the store, lessons and all else, as one JSON object a line.

    \b
    Example:
      cmat-graph memory export reflections/ --output lessons.jsonl
    """
    with _open(**at) as store, click.open_file(output, "w", encoding="utf-8", atomic=output != "-") as file:
        number = 0
        for item in store.items():
            told = {"index": item.index, "ttl": item.ttl}
            times = {"created_at": item.created_at.isoformat(), "updated_at": item.updated_at.isoformat()}
            row = {"namespace": item.namespace, "key": item.key, "value": item.value, **times, **told}
            file.write(json.dumps(row) + "\n")
            number += 1
    console.print(f"{number:,} items")


@command.command("import")
@_store
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--embeddings", help="What embeds the store: hashing (default), minilm:FOLDER.")
def import_items(*, file: IO[str], embeddings: str | None, path: str, **at: Any) -> None:
    """Add what `export` wrote; what has the same namespace and key is replaced. The store is made when missing.

    \b
    Example:
      cmat-graph memory import reflections/ lessons.jsonl
    """
    items = list(_read(file))  # all of it before anything is written: a faulty line changes nothing
    with _open(path=path, embeddings=embeddings, make=True, **at) as store:
        number = store.restore(items)
    console.print(f"{number:,} items")


@command.command("prune")
@_store
@_where
@click.option("--cap", type=click.IntRange(1), help="How many lessons may stay in one namespace.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option()
def prune_lessons(
    *,
    cap: int | None,
    dry_run: bool,
    as_json: bool,
    env: str | None,
    node: str | None,
    split: str | None,
    **at: Any,
) -> None:
    """Delete lessons that are forgotten, harmful, exact duplicates, or over the cap.

    \b
    Example:
      cmat-graph memory prune reflections/ --cap 200 --dry-run
    """
    policy = Policy(cap=cap) if cap is not None else Policy()
    with _open(**at) as store:
        gone = prune(store, policy, env=env, node=node, split=split, dry_run=dry_run)
    if as_json:
        print_json({"pruned": [{**_plain(lesson), "why": why} for lesson, why in gone], "dry_run": dry_run})
        return
    for lesson, why in gone:
        click.echo(f"{lesson.key[:8]}  {why}  {_short(lesson.text)}")
    click.echo(f"{len(gone)} lessons {'would go' if dry_run else 'deleted'}")


@command.command("forget")
@_store
@click.argument("keys", nargs=-1, required=True)
def forget(*, keys: tuple[str, ...], **at: Any) -> None:
    """Delete the lessons with these KEYS, or that begin so.

    \b
    Example:
      cmat-graph memory forget reflections/ 3f2a 91bc
    """
    with _open(**at) as store:
        found = [_find(store, key) for key in keys]
        for lesson in found:
            store.delete(lesson.namespace, lesson.key)
    click.echo(f"{len(found)} lessons deleted")


@command.command("audit")
@_store
@json_option()
def audit_lessons(*, as_json: bool, **at: Any) -> None:
    """List lessons that look useless, harmful, duplicate or suspicious. Nothing is changed.

    \b
    Example:
      cmat-graph memory audit reflections/
    """
    with _open(**at) as store:
        number = sum(1 for _ in lessons(store))
        found = audit(store)
    bad = {complaint.lesson.key for complaint in found}
    if as_json:
        told = [{"kind": c.kind, "why": c.why, **_plain(c.lesson)} for c in found]
        print_json({"lessons": number, "complained_about": len(bad), "complaints": told})
        return
    for complaint in sorted(found, key=lambda each: each.kind):
        click.echo(
            f"{complaint.kind:<10}  {complaint.lesson.key[:8]}  {complaint.why}  {_short(complaint.lesson.text)}"
        )
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(c.kind for c in found).most_common())
    click.echo(f"{len(bad)} of {number} lessons{f': {kinds}' if kinds else ''}")


@command.command("reindex")
@_store
@click.option("--embeddings", default="hashing", show_default=True, help="hashing, hashing:DIMENSIONS, minilm:FOLDER.")
def reindex(*, path: str, server: str | None, records: str | None, embeddings: str) -> None:
    """Build the Chroma index anew from the items; embed them anew where the embedding is another.

    \b
    Examples:
      cmat-graph memory reindex reflections/
      cmat-graph memory reindex reflections/ --embeddings minilm:all-MiniLM-L6-v2/
    """
    _must_be_there(path, records)
    with progress("reindex") as show_done:
        client, embedding = connect(server), load_embeddings(embeddings)
        with ChromaStore.rebuild(
            path, client=client, records=records, embeddings=embedding, progress=show_done
        ) as store:
            stats = store.stats()
    click.echo(f"{stats['items']:,} items, {stats['vectors']:,} vectors of {stats['embedding']}")


@command.command("stats")
@_store
@json_option()
def stats(*, as_json: bool, **at: Any) -> None:
    """Count items, vectors and lessons, and tell what came of the lessons.

    \b
    Example:
      cmat-graph memory stats reflections/ --json
    """
    with _open(**at) as store:
        told = store.stats()
        found = list(lessons(store))
    tried = [lesson for lesson in found if lesson.trials]
    told |= {
        "lessons": len(found),
        "lessons_tried": len(tried),
        "lessons_that_helped": sum(lesson.proven for lesson in found),
        "lessons_with_a_fix": sum(bool(lesson.fix) for lesson in found),
        "mean_gain": round(sum(lesson.gain for lesson in tried) / len(tried), 3) if tried else None,
    }
    if as_json:
        print_json(told)
        return
    for name, value in told.items():
        click.echo(f"{name.replace('_', ' '):>20}  {'-' if value is None else value}")


@contextmanager
def _open(
    path: str,
    server: str | None = None,
    records: str | None = None,
    embeddings: str | None = None,
    make: bool = False,
) -> Iterator[ChromaStore]:
    if not make:
        _must_be_there(path, records)
    with open_store(path, server=server, records=records, embeddings=embeddings) as store:
        yield store


def _must_be_there(path: str, records: str | None) -> None:
    """Refuse a folder without a store: SQLite would make an empty one of a typing mistake."""
    if records is None and not (Path(path) / "items.db").is_file():
        raise ConfigurationError(f"no lesson store at {path}; fill one with: cmat-graph run --memory {path}")


def _find(store: ChromaStore, key: str) -> Lesson:
    found = [lesson for lesson in lessons(store) if lesson.key.startswith(key)]
    if len(found) != 1:
        what = "no lesson" if not found else f"{len(found)} lessons"
        raise ConfigurationError(f"{what} with a key that begins with {key!r}; see: cmat-graph memory list")
    return found[0]


def _read(file: IO[str]) -> Iterator[KeptItem]:
    number = 0
    try:
        for number, line in enumerate(file, 1):  # noqa: B007 - told where a line is faulty
            if line.strip():
                yield _item(json.loads(line))
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{file.name} is no UTF-8 text: {exc}") from exc
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
        told = f"{type(exc).__name__}: {exc}"
        raise ConfigurationError(f"{file.name}, line {number}: not as `memory export` writes it: {told}") from exc


def _item(row: Any) -> KeptItem:
    space, index, now = row["namespace"], row.get("index"), datetime.now(UTC).isoformat()
    if not isinstance(row["value"], dict) or not isinstance(space, list) or not space:
        raise TypeError("value must be an object and namespace a list of labels")
    if not (index is None or index is False or (isinstance(index, list) and all(isinstance(i, str) for i in index))):
        raise TypeError("index must be null, false or a list of paths")
    check_ttl(row.get("ttl"))
    created, updated = (
        datetime.fromisoformat(row.get(name, now)).astimezone(UTC) for name in ("created_at", "updated_at")
    )
    return KeptItem(
        namespace=tuple(str(part) for part in space),
        key=str(row["key"]),
        value=row["value"],
        created_at=created,
        updated_at=updated,
        index=index,
        ttl=row.get("ttl"),
    )


def _plain(lesson: Lesson) -> dict[str, Any]:
    return asdict(lesson)


def _print(found: list[Lesson]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("key", "where", "lesson", "task")
    for name in ("shown", "trials", "gain", *(["score"] if any(each.score is not None for each in found) else [])):
        table.add_column(name, justify="right")
    for each in found:
        where = _short("/".join(each.namespace[1:]))
        texts = (visible(each.key[:8]), where, _short(each.wording), _short(each.task))
        score = [f"{each.score:.2f}"] if each.score is not None else []
        gain = f"{each.gain:+.2f}" if each.trials else "-"
        table.add_row(*(Text(text) for text in texts), str(each.shown), str(each.trials), gain, *score)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _short(text: str, size: int = 80) -> str:
    line = " ".join(visible(text).split())
    return line if len(line) <= size else f"{line[: size - 1]}…"
