"""Read JSON Lines files, gzipped or not, and infer their columns."""

import gzip
import hashlib
import io
import json
import re
from typing import IO, Any

import pyarrow as pa

from pipeline.input.errors import InputError
from pipeline.run_folder.store import open_for_reading

BATCH_LINES = 1000
KEEP_INVALID_BYTES = "surrogateescape"
"""Lets bytes that are not UTF-8 pass the decoder, because only parse_line knows the line number to
report."""
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def open_text(path: str) -> IO[str]:
    """Open a JSON Lines file, gzipped or not, for reading from start to end."""
    return _as_text(open_for_reading(path), path)


def parse_line(line: str, path: str, number: int) -> dict[str, Any]:
    """Parse one line; `number` is its line number, counted from 1, for the error message.

    Raises:
        InputError: the line is not a JSON object in valid UTF-8.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} line {number}: not JSON ({error}); fix the line") from error
    if not _is_unicode(line):
        raise InputError(f"{path} line {number}: not UTF-8; fix the line")
    if SURROGATE.search(line) and not _is_unicode(json.dumps(row, ensure_ascii=False)):
        raise InputError(f"{path} line {number}: half a surrogate pair (\\ud...); fix the line")
    if not isinstance(row, dict):
        raise InputError(f"{path} line {number}: {type(row).__name__}; must be an object, {{...}}")
    return row


def inspect_json_lines(path: str) -> tuple[int, str, pa.Schema]:
    """Read a whole file; returns its number of rows (blank lines do not count), a digest of its
    decompressed text, and its schema.

    Raises:
        InputError: a line is not a row, or a column has no common type.
    """
    digest, num_rows, schemas = hashlib.sha256(), 0, []
    rows: list[dict[str, Any]] = []
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            digest.update(line.encode(errors=KEEP_INVALID_BYTES))
            if line.strip():
                rows.append(parse_line(line, path, number))
            if len(rows) == BATCH_LINES:
                num_rows += len(rows)
                schemas.append(_schema_of(rows, path))
                rows = []
    schemas.append(_schema_of(rows, path))
    return num_rows + len(rows), digest.hexdigest()[:16], unify(schemas, path)


def _as_text(raw: Any, path: str) -> IO[str]:
    data = gzip.GzipFile(fileobj=raw) if path.lower().endswith(".gz") else raw
    return io.TextIOWrapper(data, encoding="utf-8", errors=KEEP_INVALID_BYTES)


def _schema_of(rows: list[dict[str, Any]], path: str) -> pa.Schema:
    columns: dict[str, None] = {}
    for row in rows:
        columns.update(dict.fromkeys(row))
    fields = []
    for column in columns:
        try:
            fields.append(pa.field(column, pa.array([row.get(column) for row in rows]).type))
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            raise InputError(
                f"data.path={path}: column {column!r} holds values of different types, or of a "
                f"type that Parquet does not have ({error}); fix the file"
            ) from error
    return pa.schema(fields)


def unify(schemas: list[pa.Schema], path: str) -> pa.Schema:
    """One schema with the columns of all `schemas`, their types widened to fit all of them.

    Raises:
        InputError: a column's types have no common type.
    """
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(
            f"data.path={path}: a column holds values of different types ({error}); fix the file"
        ) from error


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
