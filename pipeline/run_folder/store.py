"""How is an object store (S3) reached? Every request is tried often before it counts as failed, and
then one error says which operation it was.

Keys and endpoint come from the environment and stay there: `without_secrets` cleans what is said
or logged. Nothing is listed from a cache, since other workers write too. A PUT is whole or not at
all, so an object is written under its own name at once.
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

S3 = "s3://"
MAX_ATTEMPTS = 10
"""Of one request, with growing pauses: a minute in all, then s3fs asks for it again some times."""
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


class StoreError(OSError):
    """An operation that failed for good, however often it was tried."""


class Tagged(NamedTuple):
    """An object's text, and the tag that it has while it is the same."""

    text: str
    tag: str


def reached(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address or local path, and what it calls that."""
    if address.startswith(S3):
        fs = _s3()
        return fs, fs._strip_protocol(address)
    return url_to_fs(address)


def open_for_reading(address: str) -> IO[bytes]:
    fs, its = reached(address)
    opened: IO[bytes] = fs.open(its, "rb")
    return opened


def is_local(fs: AbstractFileSystem) -> bool:
    return isinstance(fs, LocalFileSystem)


def exists(file: UPath) -> bool:
    bucket, _, key = file.path.partition("/")
    try:
        with _said("look for", file):
            _s3().call_s3("head_object", Bucket=bucket, Key=key)
    except FileNotFoundError:
        return False
    return True


def read(file: UPath) -> bytes:
    """
    Raises:
        FileNotFoundError: there is no such object.
    """
    with _said("read", file):
        data: bytes = _s3().cat_file(file.path)
        return data


class ObjectFile(io.RawIOBase):
    """An object as a file: each read is one request for its range."""

    def __init__(self, file: UPath) -> None:
        self._file = file
        self._at = 0
        with _said("read", file):
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
        with _said("read", self._file):
            data = _s3().cat_file(self._file.path, start=self._at, end=end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def read_all(files: Sequence[UPath]) -> list[bytes]:
    """Many small objects, some at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(read, files))


def write(file: UPath, fill: Callable[[IO[bytes]], object]) -> None:
    buffer = io.BytesIO()
    fill(buffer)
    with _said("write", file):
        _s3().pipe_file(file.path, buffer.getvalue())


def remove(file: UPath) -> None:
    with _said("remove", file):
        _s3().rm_file(file.path)


def listing(folder: UPath) -> dict[str, float]:
    """The names right in a folder, and when each was last written by the store's clock."""
    try:
        with _said("list", folder):
            found = _s3().ls(folder.path, detail=True)
    except FileNotFoundError:
        return {}
    files = (info for info in found if info["type"] == "file")
    return {info["name"].rpartition("/")[2]: info["LastModified"].timestamp() for info in files}


def read_tagged(file: UPath) -> Tagged | None:
    """None where there is no such object."""
    try:
        with _said("read", file):
            tag = _s3().info(file.path)["ETag"]
            return Tagged(_s3().cat_file(file.path).decode(), tag)
    except FileNotFoundError:
        return None


def write_if(file: UPath, text: str, tag: str | None) -> str | None:
    """Write an object if it still has this tag, or with None if it does not exist; its new tag, or
    None where it was not so."""
    bucket, _, key = file.path.partition("/")
    condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
    with _said("write", file):
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
    """The text with the names of environment variables in place of what they hold."""
    for name in SECRETS:
        if value := os.environ.get(name, "").rstrip("/"):
            text = text.replace(value, f"${name}")
    return text


@cache
def _s3() -> AbstractFileSystem:
    """One for all threads: its requests run in a thread of its own."""
    fs, _ = url_to_fs(S3, **OPTIONS)
    return fs


@contextmanager
def _said(operation: str, file: UPath) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except ImportError as error:
        raise ValueError(
            f'{file}: needs s3fs, which is not installed: pip install "dllm-pipeline[s3]"'
        ) from error
    except Exception as error:
        said = without_secrets(str(error).strip()) or type(error).__name__
        raise StoreError(f"cannot {operation} {file}: {said}") from error


def _code(error: OSError) -> str:
    """What the store called an error that s3fs has translated."""
    response = getattr(error.__cause__, "response", {})
    return str(response.get("Error", {}).get("Code"))
