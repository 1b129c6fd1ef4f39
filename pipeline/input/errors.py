"""Errors in the input data, with messages that tell the user what to fix."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from engine.errors import UserError
from pipeline.run_folder.store import reason


class InputError(UserError):
    """The input is wrong or unreadable. The message says why and what to do."""


class Unreachable(InputError):
    """The input is at a URL that could not be read. The same job can be resumed later."""


@contextmanager
def unreadable_is_an_error(path: str) -> Iterator[None]:
    """Turn whatever a file system or a broken file raises into an InputError that names the path.

    Errors from a URL become Unreachable. With a local path, exceptions of unexpected types pass
    through, because they are our own bugs.
    """
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise InputError(f"data.path={path}: {error}; install it, or copy the file here") from error
    except (OSError, pa.ArrowException, EOFError, UnicodeError, zlib.error) as error:
        is_elsewhere = isinstance(error, OSError) and "://" in path
        kind = Unreachable if is_elsewhere else InputError
        raise kind(f"data.path={path}: cannot be read ({reason(error)})") from error
    except Exception as error:
        if "://" not in path:
            raise
        raise Unreachable(
            f"data.path={path}: cannot be reached ({reason(error)}); check the address and "
            "the network, or copy the file here and give data.path=FILE"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of a library's message, or the exception's name if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def is_panic(error: BaseException) -> bool:
    """Whether a library in Rust (polars, tokenizers) has given up. Its exception is no Exception,
    and each library has its own."""
    return type(error).__name__ == "PanicException"
