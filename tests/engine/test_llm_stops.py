"""Stop strings from LLM.generate to its answers, on a model whose tokens are single bytes: a stop
string spans tokens, and characters come in pieces."""

from pathlib import Path
from typing import Any

import pytest

from engine import LLM, Answer
from engine.request import FinishReason
from tests.checkpoints import write_checkpoint
from tests.numerics.exact import assert_same

BLOCK = 8
PROMPTS = ["hello world", "def add(x, y):", "some text", "system user", "brackets", "hello"] * 4
SETTINGS: dict[str, Any] = {
    "max_new_tokens": 60,
    "temperature": [0.0] * 6 + [1.0] * 18,
    "seed": list(range(24)),
    "progress": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    return LLM(folder, dtype="float32", device="cpu", block_length=BLOCK, max_sequences=9)


@pytest.fixture(scope="module")
def whole(llm: LLM) -> list[Answer]:
    return llm.generate(PROMPTS, **SETTINGS)


def text_of(answer: Answer) -> str:
    assert answer.text is not None, answer.error
    return answer.text


def assert_alike(found: list[Answer], other: list[Answer]) -> None:
    """Equal but for the rounding of mean confidences."""
    assert_same(dict(enumerate(found)), dict(enumerate(other)), "the other call")


def assert_cut(found: list[Answer], whole: list[Answer], stops: list[list[str]]) -> None:
    """Each answer is the whole one up to its first stop string."""
    for answer, uncut, its in zip(found, whole, stops, strict=True):
        text = text_of(uncut)
        places = [text.find(stop) for stop in its if stop in text]
        if not places:
            assert_alike([answer], [uncut])
            continue
        assert answer.finish_reason is FinishReason.STOP
        assert answer.text == text[: min(places)]
        assert answer.token_ids == uncut.token_ids[: len(answer.token_ids)]
        assert len(answer.text.encode()) <= len(answer.token_ids) or "\ufffd" in answer.text
        assert answer.num_iterations <= uncut.num_iterations


def test_stop_strings_over_several_tokens(llm: LLM, whole: list[Answer]) -> None:
    """Of two to five characters, within a block and over the border of two."""
    stops = [[text_of(a)[i + 5 : i + 7 + i % 4]] for i, a in enumerate(whole)]
    stops = [its if its[0] else ["nowhere"] for its in stops]
    found = llm.generate(PROMPTS, **SETTINGS, stop=stops)
    assert_cut(found, whole, stops)
    assert sum(answer.finish_reason is FinishReason.STOP for answer in found) > 15
    assert sum(a.num_iterations for a in found) < 0.8 * sum(a.num_iterations for a in whole)
    alone = LLM(llm.name, dtype="float32", device="cpu", block_length=BLOCK, max_sequences=1)
    assert_alike(alone.generate(PROMPTS, **SETTINGS, stop=stops), found)


def test_characters_in_pieces(llm: LLM, whole: list[Answer]) -> None:
    """A character of two bytes is a stop string once both are there. U+FFFD, which the text shows
    for bytes that are none, may be asked for too."""
    pieces = [[c for c in text_of(a) if "\x7f" < c < "\ufffd"][:1] for a in whole]
    assert sum(map(len, pieces)) > 3
    for stops in (pieces, [["\ufffd"]] * len(whole)):
        found = llm.generate(PROMPTS, **SETTINGS, stop=stops)
        assert_cut(found, whole, stops)
    assert {answer.finish_reason for answer in found} >= {FinishReason.STOP}


def test_the_very_first_token(llm: LLM, whole: list[Answer]) -> None:
    stops = [[text_of(a)[:1] or "x"] for a in whole]
    found = llm.generate(PROMPTS, **SETTINGS, stop=stops)
    assert_cut(found, whole, stops)
    empty = [answer for answer in found if answer.finish_reason is FinishReason.STOP]
    assert len(empty) > 15
    for answer in empty:
        assert (answer.text, answer.token_ids, answer.mean_confidence) == ("", [], None)


def test_overlapping_stop_strings_in_any_order(llm: LLM, whole: list[Answer]) -> None:
    """One begins within another, one is the beginning of another: the first place counts."""
    stops = []
    for answer in whole:
        text = text_of(answer)
        stops.append([s for s in (text[9:11], text[7:12], text[7:9], text[8:40]) if s] or ["no"])
    found = llm.generate(PROMPTS, **SETTINGS, stop=stops)
    assert_cut(found, whole, stops)
    turned = llm.generate(PROMPTS, **SETTINGS, stop=[its[::-1] for its in stops])
    assert_alike(turned, found)


def test_a_stop_string_in_a_block_that_is_not_finished_ends_the_sequence(folder: Path) -> None:
    """The generation region is one block. Once all before the end of the stop string is committed,
    what is masked behind it need not be."""
    llm = LLM(folder, dtype="float32", device="cpu", block_length=64, max_sequences=9)
    whole = llm.generate(PROMPTS, **SETTINGS)
    stops = [[text_of(a)[1:3] or "x"] for a in whole]
    found = llm.generate(PROMPTS, **SETTINGS, stop=stops)
    assert_cut(found, whole, stops)
    assert sum(a.num_iterations < b.num_iterations for a, b in zip(found, whole, strict=True)) > 5


def test_forms_of_the_argument(llm: LLM, whole: list[Answer]) -> None:
    text = text_of(whole[0])[3:5]
    shared = llm.generate(PROMPTS, **SETTINGS, stop=text)
    assert_alike(llm.generate(PROMPTS, **SETTINGS, stop=[text]), shared)
    assert_cut(shared, whole, [[text]] * len(whole))
    some = [[text], None, [], *[None] * (len(whole) - 3)]
    found = llm.generate(PROMPTS, **SETTINGS, stop=some)
    assert_cut(found, whole, [its or [] for its in some])
    assert_alike(llm.generate(PROMPTS, **SETTINGS, stop=[]), whole)


def test_an_empty_text_is_an_error_of_its_prompts_alone(llm: LLM, whole: list[Answer]) -> None:
    for stop in ("", ["x", ""]):
        for answer in llm.generate(PROMPTS[:2], stop=stop, progress=False):
            assert answer.error is not None
            assert "give texts that are not empty" in answer.error
    some = [[""], *[None] * (len(whole) - 1)]
    found = llm.generate(PROMPTS, **SETTINGS, stop=some)
    assert found[0].error is not None
    assert_alike(found[1:], whole[1:])
