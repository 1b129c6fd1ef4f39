"""What is wrong with the input, said so that its user can mend it."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa


class InputError(ValueError):
    """What is wrong with the input, and what to do."""


class Unreachable(InputError):
    """It is elsewhere, and what is in between failed. The same job may go on later."""


@contextmanager
def unreadable_is_an_error(path: str) -> Iterator[None]:
    """Whatever a file system or a broken file raises, as an InputError that names the path."""
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"data.path={path}: {error}; install it, or copy the file here") from error
    except (OSError, pa.ArrowException, EOFError, UnicodeError, zlib.error) as error:
        is_elsewhere = isinstance(error, OSError) and "://" in path
        kind = Unreachable if is_elsewhere else InputError
        raise kind(f"data.path={path}: cannot be read ({_first_line(error)})") from error
    except Exception as error:
        if "://" not in path:
            raise
        raise Unreachable(
            f"data.path={path}: cannot be reached ({_first_line(error)}); check the address and "
            "the network, or copy the file here and give data.path=FILE"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
