"""The whole way of an import: read records, put each trace together, write it as an episode."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmat_graph.errors import CmatError, ConfigurationError, DatasetError
from cmat_graph.traces.base import TraceStore
from cmat_graph.traces.imports import agentinstruct, langfuse, langsmith
from cmat_graph.traces.imports.settings import ImportSettings
from cmat_graph.traces.imports.spool import Spool, read_records
from cmat_graph.types import Episode

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How the records of one tool are read."""

    group: Callable[[dict[str, Any]], str]
    """Names the trace a record belongs to; empty for a record of another kind."""
    build: Callable[[str, list[dict[str, Any]], ImportSettings], Episode | None]
    """Makes an episode of a trace's records; None when there is nothing in it to learn from."""


FORMS = {
    "langsmith": Form(group=langsmith.group, build=langsmith.build),
    "langfuse": Form(group=langfuse.group, build=langfuse.build),
    "agentinstruct": Form(group=agentinstruct.group, build=agentinstruct.build),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What came of an import."""

    episodes: int
    steps: int
    left_out: dict[str, int]
    """Traces and records that were not taken, by the reason."""


def import_traces(
    source: str | Path,
    traces: TraceStore,
    *,
    form: str,
    settings: ImportSettings = ImportSettings(),
    progress: Callable[[int], None] | None = None,
) -> Imported:
    """Read what another tool recorded into the trace database.

    Each trace is written whole or not at all, and one that was imported before is left alone: so an import that was
    stopped is simply done again, and so is one of an export that grew.

    Args:
        source: A file (JSON lines, JSON or Parquet) or a folder of them.
        traces: Where to write.
        form: `langsmith`, `langfuse` or `agentinstruct`.
        settings: What the records do not tell.
        progress: Called with the number of episodes written so far.

    Raises:
        ConfigurationError: There is no such form.
        DatasetError: The source cannot be read, or holds nothing of this form.
        TraceStoreError: The database does not take it; what was written before stays, and the same call goes on.

    """
    if form not in FORMS:
        raise ConfigurationError(f"no import of the form {form!r}; known: {', '.join(FORMS)}")
    reader, left, done = FORMS[form], Counter[str](), Counter[str]()
    with Spool() as spool:
        for _, record in read_records(Path(source)):
            if name := reader.group(record):
                spool.add(name, record)
            else:
                left[f"records that are not of the form {form}"] += 1
        for name, records in spool.groups():
            episode = _build(reader, name, records, settings, left)
            if episode is None:
                continue
            if not traces.add_episode(episode):
                left["traces that were imported before"] += 1
                continue
            done.update(episodes=1, steps=len(episode.steps))
            if progress is not None:
                progress(done["episodes"])
    if not done["episodes"] and not left["traces that were imported before"]:
        told = "; ".join(f"{reason}: {count}" for reason, count in (+left).items()) or "it is empty"
        raise DatasetError(f"nothing to import from {source} as {form} ({told}); known forms: {', '.join(FORMS)}")
    return Imported(episodes=done["episodes"], steps=done["steps"], left_out=dict(+left))


def _build(
    reader: Form, name: str, records: list[dict[str, Any]], settings: ImportSettings, left: Counter[str]
) -> Episode | None:
    """Make an episode of a trace; one that holds nothing, or is damaged, is counted and does not stop the others."""
    try:
        episode = reader.build(name, records, settings)
    except CmatError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as exc:
        logger.warning("trace %r cannot be read: %s %s", name, type(exc).__name__, exc)
        left["damaged traces"] += 1
        return None
    if episode is None:
        left["traces without a model's answer"] += 1
    return episode
