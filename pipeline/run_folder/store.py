"""Requests to an object store (S3), with retries, and one clear error when an operation fails.

Keys and endpoint come from environment variables and must not be shown: `without_secrets` removes
them from messages and logs. Listings are never cached, because other workers write to the
same folders. S3 stores an object completely or not at all, so objects are written directly under
their final names.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import IO, Any, NamedTuple

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from upath import UPath

from engine.errors import UserError

S3 = "s3://"
MAX_ATTEMPTS = 10
"""Attempts per request, with growing pauses, about a minute in total. After that s3fs repeats the
whole series a few times if the error is one that it can retry."""
THREADS = 16
OPTIONS: dict[str, Any] = {
    "use_listings_cache": False,
    "config_kwargs": {"retries": {"max_attempts": MAX_ATTEMPTS, "mode": "standard"}},
}
SECRETS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
)
LOST_RACE = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409", "404")
"""S3's error codes when the condition of a conditional write did not hold."""


class StoreError(OSError):
    """An operation on the store failed, after all its retries."""


class Tagged(NamedTuple):
    """An object's text, and its ETag, which changes when the contents change."""

    text: str
    tag: str


def fs_and_path(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL or local path, and the path within that file system."""
    if address.startswith(S3):
        fs = _s3()
        return fs, fs._strip_protocol(address)
    return url_to_fs(address)


def open_for_reading(address: str) -> IO[bytes]:
    fs, path = fs_and_path(address)
    opened: IO[bytes] = fs.open(path, "rb")
    return opened


def is_local(fs: AbstractFileSystem) -> bool:
    return isinstance(fs, LocalFileSystem)


def exists(file: UPath) -> bool:
    bucket, _, key = file.path.partition("/")
    try:
        with _as_store_error("look for", file):
            _s3().call_s3("head_object", Bucket=bucket, Key=key)
    except FileNotFoundError:
        return False
    return True


def read(file: UPath) -> bytes:
    """The contents of an object.

    Raises:
        FileNotFoundError: there is no such object.
    """
    with _as_store_error("read", file):
        data: bytes = _s3().cat_file(file.path)
        return data


class ObjectFile(io.RawIOBase):
    """An object as a seekable file; each read is one request for a byte range."""

    def __init__(self, file: UPath) -> None:
        self._file = file
        self._at = 0
        with _as_store_error("read", file):
            self._size = int(_s3().info(file.path)["size"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._size, self._at + len(buffer))
        if end <= self._at:
            return 0
        with _as_store_error("read", self._file):
            data = _s3().cat_file(self._file.path, start=self._at, end=end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def read_all(files: Sequence[UPath]) -> list[bytes]:
    """Read many small objects, THREADS at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(read, files))


def write(file: UPath, fill: Callable[[IO[bytes]], object]) -> None:
    """Write an object with the bytes that `fill` writes to a stream."""
    buffer = io.BytesIO()
    fill(buffer)
    with _as_store_error("write", file):
        _s3().pipe_file(file.path, buffer.getvalue())


def remove(file: UPath) -> None:
    with _as_store_error("remove", file):
        _s3().rm_file(file.path)


def listing(folder: UPath) -> dict[str, float]:
    """The files directly in a folder: name -> time of the last write, in seconds since the epoch by
    the store's clock."""
    files = (info for info in _infos(folder) if info["type"] == "file")
    return {info["name"].rpartition("/")[2]: info["LastModified"].timestamp() for info in files}


def folders(folder: UPath) -> list[str]:
    """The names of the folders directly in a folder."""
    found = (info["name"] for info in _infos(folder) if info["type"] == "directory")
    return [name.rstrip("/").rpartition("/")[2] for name in found]


def read_tagged(file: UPath) -> Tagged | None:
    """Read an object and its tag; None if there is no such object."""
    try:
        with _as_store_error("read", file):
            tag = _s3().info(file.path)["ETag"]
            return Tagged(_s3().cat_file(file.path).decode(), tag)
    except FileNotFoundError:
        return None


def write_if(file: UPath, text: str, tag: str | None) -> str | None:
    """Write an object only if it still has this tag, or, with None, only if it does not exist.

    Returns the new tag, or None if the condition did not hold and nothing was written.
    """
    bucket, _, key = file.path.partition("/")
    condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
    with _as_store_error("write", file):
        try:
            answer = _s3().call_s3(
                "put_object", Bucket=bucket, Key=key, Body=text.encode(), **condition
            )
        except OSError as error:
            if _code(error) in LOST_RACE:
                return None
            raise
    new: str = answer["ETag"]
    return new


def without_secrets(text: str) -> str:
    """The text with each secret value replaced by $NAME of its environment variable."""
    for name in SECRETS:
        if value := os.environ.get(name, "").rstrip("/"):
            text = text.replace(value, f"${name}")
    return text


@cache
def _s3() -> AbstractFileSystem:
    """The file system that all threads share: fsspec runs its requests in a single I/O thread."""
    fs, _ = url_to_fs(S3, **OPTIONS)
    return fs


def _infos(folder: UPath) -> list[dict[str, Any]]:
    """What s3fs says of each file and folder directly in a folder."""
    try:
        with _as_store_error("list", folder):
            found: list[dict[str, Any]] = _s3().ls(folder.path, detail=True)
    except FileNotFoundError:
        return []
    return found


@contextmanager
def _as_store_error(operation: str, file: UPath) -> Iterator[None]:
    """Turn any exception but FileNotFoundError into an error that names the operation and file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except ImportError as error:
        raise UserError(
            f'{file}: needs s3fs, which is not installed: pip install "dllm-pipeline[s3]"'
        ) from error
    except Exception as error:
        reason = without_secrets(str(error).strip()) or type(error).__name__
        raise StoreError(f"cannot {operation} {file}: {reason}") from error


def _code(error: OSError) -> str:
    """S3's error code, from the original error that s3fs translated to an OSError."""
    response = getattr(error.__cause__, "response", {})
    return str(response.get("Error", {}).get("Code"))
