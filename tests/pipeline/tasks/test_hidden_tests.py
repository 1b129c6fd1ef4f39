"""LiveCodeBench's private tests are read; a pickle that would do anything else is refused."""

import base64
import io
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from pipeline.tasks import hidden_tests
from pipeline.tasks.hidden_tests import TestsError, load_plain
from pipeline.tasks.hidden_tests import tests_of as read_tests
from tests.pipeline.tasks.published_rows import packed, stdin_test

TESTS = [stdin_test("1\n", "2\n"), stdin_test("ü" * 300, "x" * 70_000)]


def encoded(raw: bytes) -> str:
    return base64.b64encode(zlib.compress(raw)).decode()


def test_tests_as_they_are_published() -> None:
    assert read_tests(json.dumps(TESTS)) == TESTS
    assert read_tests(packed(TESTS)) == TESTS


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_texts_and_lists_in_any_protocol(protocol: int) -> None:
    held = ["a", ["b", []], "é\u2028", ["a"] * 3]
    assert load_plain(pickle.dumps(held, protocol)) == held


class Runs:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(
    tmp_path: Path, protocol: int
) -> None:
    evil = pickle.dumps(["a", Runs(str(tmp_path / "made"))], protocol)
    with pytest.raises(TestsError, match="more than texts and lists"):
        read_tests(encoded(evil))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TestsError, match=r"names .*mkdir"):
        hidden_tests._Plain(io.BytesIO(evil)).load()
    assert list(tmp_path.iterdir()) == [], "the second lock holds by itself"


@pytest.mark.parametrize(
    "held", [{"a": 1}, 3, 2.5, None, True, ("a",), {"a"}, b"bytes", bytearray(b"a"), ["a", 1]]
)
def test_any_other_type_is_refused(held: Any) -> None:
    with pytest.raises(TestsError):
        load_plain(pickle.dumps(held))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base64!",
        base64.b64encode(b"not compressed").decode(),
        encoded(b""),
        encoded(b"."),
        encoded(b"(lp0\n"),
        encoded(b"g7\n."),
        encoded(b"\x8c\x01aa."),
        encoded(pickle.dumps("no JSON")),
        encoded(pickle.dumps('{"input": "1"}')),
        encoded(pickle.dumps([["[]"]])),
        json.dumps([{"input": 1, "output": "2"}]),
        json.dumps({"input": "1", "output": "2"}),
        encoded(pickle.dumps("[]"))[:-8],
    ],
)
def test_what_is_damaged_is_refused(text: str) -> None:
    with pytest.raises(TestsError):
        read_tests(text)


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden_tests, "MAX_BYTES", 1000)
    with pytest.raises(TestsError, match="more than 1,000 bytes"):
        read_tests(encoded(bytes(100_000)))
