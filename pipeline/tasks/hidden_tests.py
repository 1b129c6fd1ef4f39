"""LiveCodeBench's tests, as they are published: JSON, or, to keep them from crawlers, JSON in a
pickle, compressed, in base64.

A pickle can run code when it is loaded. So this one is looked through first: it may build texts and
lists, and nothing else.
"""

import base64
import io
import json
import pickle
import pickletools
import zlib
from typing import Any, NoReturn

from engine.errors import UserError

MAX_BYTES = 1 << 30
"""The most that a row's tests may decompress to."""
BUILDS_TEXT_AND_LISTS = {
    *("PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"),
}
"""The opcodes of a pickle that do nothing else."""


class TestsError(UserError):
    """The row's tests are not what LiveCodeBench publishes."""

    __test__ = False  # no class of pytest's


def tests_of(text: str) -> list[dict[str, Any]]:
    """The tests: {input, output, testtype} each.

    Raises:
        TestsError: they cannot be read.
    """
    try:
        tests = json.loads(text)
    except json.JSONDecodeError:
        tests = _unpickled(text)
    if not isinstance(tests, list) or not all(_is_test(its) for its in tests):
        raise TestsError("not a list of {input, output, testtype}")
    return tests


def _is_test(one: Any) -> bool:
    return isinstance(one, dict) and all(
        isinstance(one.get(name), str) for name in ("input", "output")
    )


def _unpickled(text: str) -> Any:
    try:
        packed = zlib.decompressobj()
        raw = packed.decompress(base64.b64decode(text, validate=True), MAX_BYTES)
    except (ValueError, zlib.error) as error:
        raise TestsError(f"neither JSON nor compressed base64: {error}") from error
    if packed.unconsumed_tail or not packed.eof:
        raise TestsError(f"more than {MAX_BYTES:,} bytes, or cut short")
    found = load_plain(raw)
    texts = found if isinstance(found, list) else [found]
    if not all(isinstance(its, str) for its in texts):
        raise TestsError("a pickle of lists within lists")
    try:
        tests = [json.loads(its) for its in texts]
    except json.JSONDecodeError as error:
        raise TestsError(f"a pickle of what is not JSON: {error}") from error
    return tests if isinstance(found, list) else tests[0]


def load_plain(raw: bytes) -> Any:
    """What a pickle holds, if that is texts and lists.

    Raises:
        TestsError: it would build anything else, or is damaged.
    """
    try:
        for opcode, _, _ in pickletools.genops(raw):
            if opcode.name not in BUILDS_TEXT_AND_LISTS:
                raise TestsError(f"a pickle that holds more than texts and lists: {opcode.name}")
        return _Plain(io.BytesIO(raw)).load()
    except TestsError:
        raise
    except (ValueError, EOFError, IndexError, KeyError, pickle.UnpicklingError) as error:
        raise TestsError(f"a damaged pickle: {error}") from error
    except (AttributeError, TypeError) as error:  # an append to what is no list
        raise TestsError(f"a damaged pickle: {error}") from error


class _Plain(pickle.Unpickler):
    """Builds no objects; a second lock behind the look through the opcodes."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise TestsError(f"a pickle that names {module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise TestsError("a pickle that names an object elsewhere")
