"""Records of an export, put in order: a file may hold a thousand traces with their calls in any order.

They go through a small database on disk, so that memory stays flat however large the export is.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from cmat_graph.errors import DatasetError, MissingExtraError

_LISTS = ("runs", "data", "observations", "traces")
"""Keys under which an API's answer holds its records."""
SUFFIXES = (".jsonl", ".json", ".parquet")


class Spool:
    """Keeps records by the group they belong to, on disk, until the block is left."""

    def __enter__(self) -> Spool:
        self._folder = tempfile.TemporaryDirectory(prefix="cmat-import-")
        self._db = sqlite3.connect(Path(self._folder.name) / "spool.db")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("CREATE TABLE records (grp TEXT, body TEXT)")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, where: TracebackType | None
    ) -> None:
        self._db.close()
        self._folder.cleanup()

    def add(self, group: str, record: dict[str, Any]) -> None:
        """Put a record into its group."""
        body = json.dumps(record, ensure_ascii=False)
        told = tuple(
            each.encode("utf-8", "replace").decode() for each in (group, body)
        )  # half a surrogate pair is none
        self._db.execute("INSERT INTO records VALUES (?, ?)", told)

    def groups(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Return each group with its records, groups and records in the order they came."""
        self._db.execute("CREATE INDEX by_group ON records (grp)")
        for (group,) in self._db.execute("SELECT grp FROM records GROUP BY grp ORDER BY min(rowid)").fetchall():
            rows = self._db.execute("SELECT body FROM records WHERE grp = ? ORDER BY rowid", (group,))
            yield group, [json.loads(body) for (body,) in rows]


def read_records(source: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read an export: JSON lines, a JSON array, an API's answer, Parquet, or a folder of such files.

    Yields:
        Where a record stands, for messages, and the record.

    Raises:
        DatasetError: There is no such file, or it is none of these.
        MissingExtraError: A Parquet file, and `pyarrow` is not installed.

    """
    if source.is_dir():
        files = sorted(file for file in source.rglob("*") if file.suffix in SUFFIXES)
        if not files:
            raise DatasetError(f"no {', '.join(SUFFIXES)} file in {source}; name the export's own folder or file")
        for file in files:
            yield from _read(file)
    elif source.is_file():
        yield from _read(source)
    else:
        raise DatasetError(f"no file at {source}; export the traces first and name the file")


def _read(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if file.suffix == ".parquet":
        yield from _read_parquet(file)
        return
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as exc:
                    if number == 1:  # one value over many lines
                        yield from _read_whole(file)
                        return
                    raise DatasetError(f"{file}, line {number}: {exc}; is it JSON lines?") from exc
                yield from _unwrap(record, f"{file}, line {number}")
    except UnicodeDecodeError as exc:
        raise DatasetError(f"{file} is no text in UTF-8: {exc}; unpack it, or export as JSON lines") from exc


def _read_whole(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        whole = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as exc:
        raise DatasetError(f"{file} is neither JSON lines nor JSON: {exc}; export it again as JSON lines") from exc
    yield from _unwrap(whole, str(file))


def _unwrap(value: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, list):
        for number, record in enumerate(value, 1):
            yield from _unwrap(record, f"{where}, record {number}")
    elif not isinstance(value, dict):
        raise DatasetError(f"{where}: a record is an object, not {type(value).__name__}; is it an export of traces?")
    elif "id" not in value and (name := next((n for n in _LISTS if isinstance(value.get(n), list)), "")):
        yield from _unwrap(value[name], where)
    else:
        yield where, value


def _read_parquet(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as exc:
        raise MissingExtraError.of("local", exc) from exc
    number = 0
    try:
        for batch in parquet.ParquetFile(file).iter_batches(256):
            for record in batch.to_pylist():
                number += 1
                yield f"{file}, row {number}", json.loads(json.dumps(record, default=str))
    except (OSError, ValueError) as exc:
        raise DatasetError(f"{file} is no readable Parquet file: {exc}; export it again") from exc
