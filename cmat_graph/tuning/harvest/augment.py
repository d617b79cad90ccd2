"""More of what is right: the task in other words, tables and columns under other names. Only what is trained on."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any
from zlib import crc32

from cmat_graph.tuning.dataset import hash_task
from cmat_graph.tuning.harvest.collect import Found, trimmed
from cmat_graph.tuning.harvest.leaks import Guard
from cmat_graph.tuning.harvest.messages import seen_texts
from cmat_graph.tuning.harvest.paraphrase import Paraphraser, by_rules, keeps_names, replace_task
from cmat_graph.tuning.harvest.rename import declared_names, new_names, rename, rename_text
from cmat_graph.tuning.harvest.spool import Candidate
from cmat_graph.tuning.harvest.tally import Tally
from cmat_graph.tuning.sources import HarvestSettings


def augment(
    train: Sequence[Candidate],
    found: Found,
    settings: HarvestSettings,
    tally: Tally,
    guard: Guard,
    paraphraser: Paraphraser | None = None,
) -> list[Candidate]:
    """Make further rows of those that are trained on; each copy is changed in every way that is asked for.

    A row made from another one belongs to the same task: a leak is found whatever its words. One whose new words are
    those of another recorded task, or of one that is held out, is not made.
    """
    if not settings.augment:
        return []
    tally.took("augment", "rows", len(train))
    known = {row.digest for row in train}
    others = set(found.tasks.hashes)
    made: list[Candidate] = []
    for candidate in train:
        row = found.spool.get(candidate.place)
        for copy in range(settings.copies):
            changed = _change(row, settings, tally, paraphraser, number=settings.seed + copy)
            if changed is None:
                tally.left("augment", "copies", "nothing to change")
                continue
            if _is_another(changed["text"], row["text"], others) or (
                guard.finds(seen_texts(changed["messages"]), whole=changed["text"])
            ):
                tally.left("augment", "copies", "the text of another task")
                continue
            new = found.add_row(changed, candidate)
            if new.digest in known:
                tally.left("augment", "copies", "repeated")
                continue
            known.add(new.digest)
            made.append(new)
    tally.gave("augment", "rows", len(train) + len(made))
    return made


def _change(
    row: dict[str, Any], settings: HarvestSettings, tally: Tally, paraphraser: Paraphraser | None, *, number: int
) -> dict[str, Any] | None:
    """Return another row that teaches the same; None where nothing could be changed."""
    messages: list[Any] = list(trimmed(row["messages"]))
    text = row["text"]
    ways = []
    if "paraphrase" in settings.augment and text:
        worded = _word(text, tally, paraphraser, number=number)
        changed = [
            message if message["role"] in ("system", "assistant") else
            message | {"content": replace_task(message["content"], text, worded)}
            for message in messages
        ]  # fmt: skip
        if changed != messages:
            messages, text = changed, worded
            ways.append("paraphrase")
    if "rename" in settings.augment and (names := new_names(messages, text, seed=f"{number}:{row['text']}")):
        messages = [rename(message, names) for message in messages]
        text = rename_text(text, names)
        ways.append("rename")
    if not ways:
        return None
    return {**row, "messages": messages, "text": text, "origin": row["origin"] | {"augmented": "+".join(ways)}}


def _is_another(text: str, before: str, others: Container[str]) -> bool:
    return hash_task(text) != hash_task(before) and hash_task(text) in others


def _word(text: str, tally: Tally, paraphraser: Paraphraser | None, *, number: int) -> str:
    if paraphraser is not None:
        worded = paraphraser(text).strip()
        if worded and keeps_names(text, worded, declared_names(text)):
            return worded
        tally.left("augment", "paraphrases", "a name or a value was lost")
    return by_rules(text, number=number + crc32(text.encode("utf-8", "replace")))
