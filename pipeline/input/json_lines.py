"""Read the rows of JSON Lines files, and infer their columns.

A file holds one object per line, or is one array of objects. It may be gzipped, whatever its name,
and have any of the encodings of Unicode that its first bytes tell (UTF-8, UTF-16, UTF-32).
"""

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from pipeline.input.errors import InputError
from pipeline.input.json_kinds import JsonColumns, Unparsed
from pipeline.input.json_scan import elements, values_of
from pipeline.run_folder.store import open_for_reading

BATCH_LINES = 1000
HEAD_BYTES = 4096
CHUNK_BYTES = 1 << 16
GZIP = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
OTHERS = {
    PARQUET_MAGIC: ("a Parquet file", "give it a name that ends in .parquet"),
    b"PK\x03\x04": ("a zip archive", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("packed with zstd", "unpack it, or pack it with gzip"),
    b"BZh": ("packed with bzip2", "unpack it, or pack it with gzip"),
    b"\xfd7zXZ": ("packed with xz", "unpack it, or pack it with gzip"),
    b"version https://git-lfs": ("a Git LFS pointer", "fetch the file itself with `git lfs pull`"),
}
"""What files with other first bytes are, and what to do."""
KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "number",
    float: "number",
    str: "text",
    list: "list",
}
"""What a line holds that is no object."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row as text."""

    number: int
    """The line in which it begins, counted from 1."""
    text: str


def read_lines(path: str, watch: Callable[[str], object] | None = None) -> Iterator[Line]:
    """The rows of a file, from start to end; blank lines are none. `watch` is called with every
    piece of the file's text.

    Raises:
        InputError: the file is of another kind, or an array that is broken.
    """
    stream = _open_text(path)
    if stream.is_array:
        try:
            for number, text in elements(_watched(stream.text.read, watch)):
                yield Line(number, text)
        except ValueError as error:
            if isinstance(error, InputError | UnicodeError):
                raise
            raise InputError(f"{path} {error}; fix the file") from error
        return
    for number, text in enumerate(stream.text, 1):
        if watch is not None:
            watch(text)
        if text.strip():
            yield Line(number, text)


def parse_line(line: Line, path: str) -> dict[str, Any]:
    """Parse one row. A value that Python cannot parse becomes Unparsed.

    Text that is not valid Unicode (bytes that are not UTF-8, half a surrogate pair) is kept, with
    surrogates in the place of what is wrong.

    Raises:
        InputError: the line is not a JSON object.
    """
    place = f"{path} line {line.number}"
    try:
        row = json.loads(line.text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{place}: not JSON ({error}); fix the line: each must hold one whole object, {{...}}, "
            "or the file one array of objects"
        ) from error
    except (RecursionError, ValueError):
        row = _by_value(line.text, place)
    if not isinstance(row, dict):
        raise InputError(
            f"{place}: {KINDS[type(row)]}; must be an object, {{...}}, whose keys are the columns"
        )
    return row


def json_text(name: str, value: Any, line: Line) -> str:
    """The value of one column of a line as JSON text."""
    if isinstance(value, Unparsed):
        return value.text
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return values_of(line.text)[name]
    return text if is_unicode(text) else json.dumps(value)


def inspect_json_lines(path: str) -> tuple[int, str, JsonColumns]:
    """Read a whole file; returns its number of rows, a digest of its decompressed text, and its
    columns.

    Raises:
        InputError: a line is not a row.
    """
    digest, num_rows, columns = hashlib.sha256(), 0, JsonColumns(path)
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    for line in read_lines(path, lambda text: digest.update(text.encode(errors="surrogatepass"))):
        rows.append(parse_line(line, path))
        numbers.append(line.number)
        if len(rows) == BATCH_LINES:
            columns.add(rows, numbers)
            num_rows += len(rows)
            rows, numbers = [], []
    columns.add(rows, numbers)
    return num_rows + len(rows), digest.hexdigest()[:16], columns


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded: it holds no surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Text:
    text: IO[str]
    is_array: bool
    """Whether the first character is that of an array."""


def _open_text(path: str) -> _Text:
    """
    Raises:
        InputError: the first bytes are those of another kind of file.
    """
    raw = _Peeked(open_for_reading(path))
    if raw.head.startswith(GZIP):  # whatever its name says: many programs unpack *.gz unasked
        raw = _Peeked(gzip.GzipFile(fileobj=io.BufferedReader(raw, HEAD_BYTES)))
    for magic, (what, remedy) in OTHERS.items():
        if raw.head.startswith(magic):
            raise InputError(f"data.path={path}: is {what}, not JSON Lines; {remedy}")
    encoding = json.detect_encoding(raw.head)
    # Bytes that are not UTF-8 become surrogates, so that only the cell that holds them is at fault.
    errors = "surrogateescape" if encoding.startswith("utf-8") else "surrogatepass"
    start = raw.head.decode(encoding, "ignore")
    text = io.TextIOWrapper(io.BufferedReader(raw, CHUNK_BYTES), encoding=encoding, errors=errors)
    return _Text(text, start.lstrip().startswith("["))


class _Peeked(io.RawIOBase):
    """A stream whose first bytes are known before it is read. (Not every stream can seek.)"""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile) -> None:
        self._stream = stream
        self.head = stream.read(HEAD_BYTES)
        self._left = self.head

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._left[: len(buffer)] or self._stream.read(len(buffer))
        self._left = self._left[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def _watched(
    read: Callable[[int], str], watch: Callable[[str], object] | None
) -> Callable[[int], str]:
    if watch is None:
        return read

    def watched(num: int) -> str:
        text = read(num)
        watch(text)
        return text

    return watched


def _by_value(text: str, place: str) -> dict[str, Any]:
    """The row of a line that cannot be parsed as a whole: each value by itself."""
    try:
        texts = values_of(text)
    except ValueError as error:
        raise InputError(f"{place}: not JSON that can be read ({error}); fix the line") from error
    row: dict[str, Any] = {}
    for name, value in texts.items():
        try:
            row[name] = json.loads(value)
        except RecursionError:
            row[name] = Unparsed(value, is_deep=True)
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: not JSON in {name!r} ({error}); fix the line") from error
        except ValueError:  # a number of thousands of digits
            row[name] = Unparsed(value, is_deep=False)
    return row
