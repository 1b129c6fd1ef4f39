"""Requests to an object store (S3, Google Cloud Storage, Azure Blob Storage), and one clear error
when one fails. obstore sends them, and repeats those that fail.

Keys and endpoint come from environment variables and must not be shown: `without_secrets` removes
them from messages and logs. A store keeps an object completely or not at all, so objects are
written directly under their final names.
"""

import io
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from fsspec.asyn import get_loop, sync
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.fsspec import FsspecStore
from obstore.store import from_url
from upath import UPath

from engine.errors import UserError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
"""scheme of an address -> the environment variables that usually hold its keys."""
RETRIES: "RetryConfig" = {"retry_timeout": timedelta(minutes=4), "max_retries": 1000}
"""A request is repeated with growing pauses (at most 15 s) until it has taken this long. Its
signature, which is not renewed, expires after 5 minutes."""
CLIENT: "ClientConfig" = {"timeout": timedelta(minutes=2), "allow_http": True}
"""An attempt that is not answered completely by then has failed. http:// is for endpoints on the
own network."""
PIECE_BYTES = 16 << 20
"""A larger object is uploaded in pieces of this size."""
AHEAD_BYTES = 1 << 20
"""How far an input file is read ahead."""
THREADS = 16
ENDPOINTS = (
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    *("GOOGLE_BASE_URL", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
)
SECRETS = (
    *ENDPOINTS,
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN"),
    *("GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_BEARER_TOKEN"),
    *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY"),
    *("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN"),
    *("AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET"),
)
ANSWER = re.compile(r"[\s:\ufeff]*<.*?<Code>(.*?)</Code>.*?<Message>(.*?)</Message>.*", re.DOTALL)
"""A store's answer to a failed request. Its other elements may repeat keys and endpoint."""
CAUSE = re.compile(r'\b(?:message|error): "(.+)"|\b(TimedOut|IncompleteMessage)\b')
"""Why the network failed, in the text that obstore adds to an error for debugging."""


class StoreError(OSError):
    """An operation on the store failed, after all its retries."""


class Tagged(NamedTuple):
    """An object's text, and its tag, which changes when the contents change."""

    text: str
    tag: dict[str, str]
    """`e_tag` and `version`, of which S3 and Azure compare the first, Google the second."""


class Stored(FsspecStore):
    """The objects of a store for fsspec, which finds input files; a bucket is a folder."""

    def _construct_store(self, bucket: str) -> "ObjectStore":
        return _bucket(str(self.protocol), bucket)

    async def _info(self, path: str, **options: Any) -> dict[str, Any]:
        if "/" not in path.strip("/"):
            return {"name": path, "size": 0, "type": "directory"}
        return await super()._info(path, **options)


def is_stored(address: str) -> bool:
    """Whether it is the address of an object or folder on a store."""
    return address.startswith(tuple(f"{scheme}://" for scheme in KEYS))


def fs_and_path(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL or local path, and the path within that file system."""
    if is_stored(address):
        scheme, _, path = address.partition("://")
        return _stored(scheme), path.rstrip("/")
    return url_to_fs(address)


def open_for_reading(address: str) -> IO[bytes]:
    if is_stored(address):
        return open_object(UPath(address), "readahead")
    fs, path = url_to_fs(address)
    opened: IO[bytes] = fs.open(path, "rb")
    return opened


def is_local(fs: AbstractFileSystem) -> bool:
    return isinstance(fs, LocalFileSystem)


def exists(file: UPath) -> bool:
    try:
        _request("look for", file, "head")
    except FileNotFoundError:
        return False
    return True


def read(file: UPath) -> bytes:
    """The contents of an object.

    Raises:
        FileNotFoundError: there is no such object.
    """
    data: bytes = _request("read", file, "get")[0]
    return data


class ObjectFile(AbstractBufferedFile):  # type: ignore[misc]
    """An object as a seekable file, whose reads raise StoreError like all requests."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        end, file = min(end, self.size), UPath(f"{self.fs.protocol}://{self.path}")
        data: bytes = _request("read", file, "get_range", start=start, end=end).to_bytes()
        return data


def open_object(file: UPath, cache_type: str = "none") -> IO[bytes]:
    """Open an object. Without a cache (fsspec's `cache_type`), each read is one request for just
    that byte range."""
    size = _request("read", file, "head")["size"]
    fs = _stored(file.protocol)
    opened: Any = ObjectFile(
        fs, file.path, block_size=AHEAD_BYTES, cache_type=cache_type, size=size
    )
    return opened


def read_all(files: Sequence[UPath]) -> list[bytes]:
    """Read many small objects, THREADS at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(read, files))


def write(file: UPath, fill: Callable[[IO[bytes]], object]) -> None:
    """Write an object with the bytes that `fill` writes to a stream."""
    buffer = io.BytesIO()
    fill(buffer)
    _request("write", file, "put", buffer.getvalue(), chunk_size=PIECE_BYTES)


def remove(file: UPath) -> None:
    _request("remove", file, "delete")


def listing(folder: UPath) -> dict[str, float]:
    """The files directly in a folder: name -> time of the last write, in seconds since the epoch by
    the store's clock."""
    found = _request("list", folder, "list_with_delimiter")
    return {
        info["path"].rpartition("/")[2]: info["last_modified"].timestamp()
        for info in found["objects"]
    }


def folders(folder: UPath) -> list[str]:
    """The names of the folders directly in a folder."""
    found = _request("list", folder, "list_with_delimiter")["common_prefixes"]
    return [name.rstrip("/").rpartition("/")[2] for name in found]


def read_tagged(file: UPath) -> Tagged | None:
    """Read an object and its tag; None if there is no such object."""
    try:
        data, info = _request("read", file, "get")
    except FileNotFoundError:
        return None
    return Tagged(data.decode(), _tag(info))


def write_if(file: UPath, text: str, tag: dict[str, str] | None) -> dict[str, str] | None:
    """Write an object only if it still has this tag, or, with None, only if it does not exist.

    Returns the new tag, or None if the condition did not hold and nothing was written.
    """
    try:
        return _tag(_request("write", file, "put", text.encode(), mode=tag or "create"))
    except (AlreadyExistsError, PreconditionError):
        return None


def without_secrets(text: str) -> str:
    """The text with each secret value replaced by $NAME of its environment variable."""
    for name in SECRETS:
        if value := os.environ.get(name, "").rstrip("/"):
            text = text.replace(value, f"${name}")
    return text


def reason(error: Exception) -> str:
    """What an error says first, on one line and without secrets."""
    said, _, for_debugging = str(error).partition("\n\nDebug source:")
    first, *_ = ANSWER.sub(r" (\1: \2)", said).strip().splitlines() or [type(error).__name__]
    cause = CAUSE.search(for_debugging)
    return without_secrets(f"{first} ({cause[1] or cause[2]})" if cause else first)


def _request(operation: str, file: UPath, method: str, *arguments: Any, **options: Any) -> Any:
    """Call a method of obstore for an object or folder, in fsspec's I/O thread: this thread, which
    only waits, can be ended by a signal, while obstore lets none through.

    Raises:
        FileNotFoundError: there is no such object, or no such bucket.
        AlreadyExistsError, PreconditionError: the condition of a write does not hold.
        StoreError: the request has failed for another reason.
    """
    bucket, _, key = file.path.partition("/")

    async def sent() -> Any:
        store = _bucket(file.protocol, bucket)
        answer = await getattr(store, f"{method}_async")(key, *arguments, **options)
        return ((await answer.bytes_async()).to_bytes(), answer.meta) if method == "get" else answer

    try:
        return sync(get_loop(), sent)
    except (AlreadyExistsError, PreconditionError, UserError):
        raise
    except Exception as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else StoreError
        raise kind(f"cannot {operation} {file}: {reason(error)}") from error


def _tag(info: Any) -> dict[str, str]:
    return {name: info[name] for name in ("e_tag", "version") if info[name]}


def _stored(scheme: Any) -> Stored:
    return Stored(scheme)


@cache
def _bucket(scheme: str, bucket: str) -> "ObjectStore":
    """Open a bucket with the keys of the environment. If it has none for S3, boto3 looks for them:
    it knows ~/.aws, single sign-on and machines' roles, and says at once if there are none.

    Raises:
        UserError: a setting is missing or wrong. No request is sent yet.
    """
    _check_environment()
    options: dict[str, Any] = {"client_options": CLIENT, "retry_config": RETRIES}
    known = {"AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE"} & os.environ.keys()
    try:
        if scheme == "s3" and not known:
            from obstore.auth.boto3 import Boto3CredentialProvider

            options["credential_provider"] = Boto3CredentialProvider()
        return from_url(f"{scheme}://{bucket}", **options)
    except Exception as error:
        raise UserError(
            f"{scheme}://{bucket}: cannot be opened ({reason(error)}); set {KEYS[scheme]}"
        ) from error


def _check_environment() -> None:
    """Unset empty variables, because obstore would send an empty key or endpoint.

    Raises:
        UserError: an endpoint is not a URL, for which obstore would only say that it panicked.
    """
    for name in [*SECRETS, "AWS_REGION", "AWS_DEFAULT_REGION"]:
        if not os.environ.get(name, "unset"):
            del os.environ[name]
    for name in ENDPOINTS:
        if not os.environ.get(name, "https://").startswith(("https://", "http://")):
            raise UserError(f"{name} is not a URL; let it begin with https:// or http://")
