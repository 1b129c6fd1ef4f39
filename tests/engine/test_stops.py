"""Stop strings: the search as a text grows, and the engine's generations that are cut at them."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.engine import DiffusionEngine
from engine.request import FinishReason, Request, Result
from engine.stops import Cut, StopSearch
from engine.text.chat import ChatTokenizer
from tests.engine.lives import TEXTS, text_of
from tests.engine.plain import stops as plain
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_same
from tests.tiny import mixed_requests, tiny_llada2_model, tiny_model

DEMO = Path(__file__).parents[2] / "jobs" / "demo" / "model"
TextOf = Callable[[list[int]], str]


def naive(tokens: list[int], stops: tuple[str, ...], its_text: TextOf) -> Cut | None:
    length = plain.first(its_text(tokens), stops)
    return None if length is None else Cut(plain.fewest(tokens, length, its_text), length)


def searched(
    tokens: list[int], stops: tuple[str, ...], its_text: TextOf, draw: random.Random
) -> tuple[Cut | None, int]:
    """The cut of a text that grows by some tokens at a time, and the tokens read until then."""
    search, num_read = StopSearch(stops, its_text), 0
    while num_read < len(tokens):
        num_read = min(num_read + draw.choice([0, 1, 1, 2, 7]), len(tokens))
        if (cut := search.read(tokens[:num_read])) is not None:
            return cut, num_read
    return search.at_end(tokens), num_read


@pytest.mark.parametrize("seed", range(4))
def test_the_first_occurrence_is_found_however_the_text_grows(seed: int) -> None:
    """Rare stop strings in long texts, so that the search has moved on when they come."""
    draw = random.Random(seed)
    places = []
    for _ in range(40):
        text = "".join(draw.choices("abc \n\u20acd", k=draw.randint(1, 12)))
        stops = (text, "".join(draw.choices("abcd", k=7)))[: draw.randint(1, 2)]
        tokens = draw.choices(range(len(TEXTS)), k=draw.randint(1, 400))
        if draw.random() < 0.5:  # else it may not be there
            place = draw.randint(0, len(tokens))
            as_bytes = text.encode()
            tokens[place:place] = [TEXTS.index(bytes([b])) for b in as_bytes if bytes([b]) in TEXTS]
        expected = naive(tokens, stops, text_of)
        for _ in range(3):
            assert searched(tokens, stops, text_of, draw)[0] == expected, (stops, tokens)
        places.append(-1 if expected is None else expected.num_tokens)
    assert min(places) == -1
    assert max(places) > 150


def test_the_search_ends_as_soon_as_the_text_is_final() -> None:
    letters: TextOf = lambda ids: "".join(map(chr, ids))  # noqa: E731
    text = "one two\n\nthree"
    tokens = [ord(c) for c in text]
    search = StopSearch(("\n\n",), letters)
    assert [search.read(tokens[:n]) is not None for n in (7, 8, 9)] == [False, False, True]
    assert search.cut == Cut(7, 7)


def test_overlapping_stop_strings() -> None:
    """The one that begins first wins, though another is complete before it; the search waits while
    it may still come."""
    letters: TextOf = lambda ids: "".join(map(chr, ids))  # noqa: E731
    stops = ("cdefg", "de")
    for text, reads, length in (
        ("abcdefgh", [False] * 6 + [True], 2),
        ("abcdefxh", [False] * 6 + [True], 3),
        ("abcdef", [False] * 6, 3),
        ("abde", [False] * 3 + [True], 2),
        ("cdefg", [False] * 4 + [True], 0),
        ("de", [False, True], 0),
    ):
        tokens, search = [ord(c) for c in text], StopSearch(stops, letters)
        found = [search.read(tokens[: n + 1]) is not None for n in range(len(reads))]
        assert found == reads, text
        assert search.at_end(tokens) == Cut(length, length), text


def test_a_cut_within_a_token_keeps_the_token() -> None:
    ids = [TEXTS.index(piece) for piece in (b"d", b"cab", b"bb")]
    assert StopSearch(("bbb",), text_of).at_end(ids) == Cut(2, 3), "d, ca; the token is cab"
    assert StopSearch(("d",), text_of).at_end(ids) == Cut(0, 0)


def test_bytes_of_a_character_that_is_not_whole_are_no_text_yet() -> None:
    first, rest = TEXTS.index(b"\xe2"), TEXTS.index(b"\x82\xac")
    search = StopSearch(("\ufffd",), text_of)
    assert search.read([first]) is None
    assert search.read([first, rest]) is None
    assert search.at_end([first, rest]) is None
    assert StopSearch(("\ufffd",), text_of).at_end([3, first]) == Cut(1, 2)
    assert StopSearch(("\u20ac",), text_of).read([3, first, rest]) == Cut(1, 2)


def test_the_search_reads_few_tokens_again() -> None:
    """4,000 tokens, one at a time: a whole text each time would be eight million."""
    num_decoded = 0

    def counted(ids: list[int]) -> str:
        nonlocal num_decoded
        num_decoded += len(ids)
        return text_of(ids)

    search = StopSearch(("</answer>",), counted)
    tokens = [i % 8 for i in range(4000)]
    for n in range(1, 4001):
        assert search.read(tokens[:n]) is None
    assert num_decoded < 4000 * 150, num_decoded


def test_with_the_tokenizer_of_a_checkpoint() -> None:
    tokenizer = ChatTokenizer.of_checkpoint(DEMO)
    text = "def f(x):\n    return x + 1  # \u00e9\u4e2d\u6587\n\n\ndef g(x):\n    return 2 * x\n"
    tokens = tokenizer.raw("prompt", [text], lambda texts: texts[0]).ids
    draw = random.Random(0)
    for stop in ("\n\n\n", "\ndef", "return", "def", "\u4e2d", "x + 1 ", "nowhere", "* x\n"):
        expected = naive(tokens, (stop,), tokenizer.text)
        found, _ = searched(tokens, (stop,), tokenizer.text, draw)
        assert found == expected, stop
        shown = tokenizer.text(tokens)
        if stop in shown:
            assert found is not None
            assert (
                tokenizer.text(tokens[: found.num_tokens])[: found.text_length]
                == (shown[: shown.find(stop)])
            )


def letters_of(ids: list[int]) -> str:
    """A letter or two for each word of the tiny models."""
    return "".join(chr(97 + i % 9) if i % 4 else chr(97 + i % 5) * 2 for i in ids)


MODELS = {"bidirectional": tiny_model(), "block-causal": tiny_llada2_model(block_length=8)}
CACHES = {"bidirectional": "dual", "block-causal": "block_causal"}


def engine_of(attention: str, decoding: str, **settings: int) -> DiffusionEngine:
    combination = Combination({"name": CACHES[attention]}, {"name": decoding})
    made = combination.engine(MODELS[attention], block_length=8, **settings)
    return DiffusionEngine(
        made.runner.model,
        config=made.config,
        decoding=made.rules.decoding,
        cache=made.iterations._policy,
        text_of=letters_of,
    )


def results_of(engine: DiffusionEngine, requests: list[Request]) -> dict[object, Result]:
    return {result.request_id: result for result in engine.results(requests)}


STOPS = (("fb",), ("aa", "h"), ("cbd", "bdd"), ("gg", "ggg", "dc"), ("nowhere",))


@pytest.mark.parametrize("decoding", ["threshold", "edit"])
@pytest.mark.parametrize("attention", list(MODELS))
def test_generations_are_those_without_stop_strings_cut_at_the_first(
    attention: str, decoding: str
) -> None:
    """In any batch; with fewer forwards. With edits too: a stop string counts once its block is
    finished."""
    plain_requests = [
        replace(request, temperature=0.8 * (request.request_id % 2), max_new_tokens=60)
        for request in mixed_requests(20, seed=5)
    ]
    requests = [
        replace(request, stop=STOPS[i % len(STOPS)] if i % 6 else ())
        for i, request in enumerate(plain_requests)
    ]
    whole = results_of(engine_of(attention, decoding), plain_requests)
    found = results_of(engine_of(attention, decoding), requests)
    reasons = []
    for request in requests:
        result, uncut = found[request.request_id], whole[request.request_id]
        cut = naive(uncut.token_ids, request.stop, letters_of)
        reasons.append(result.finish_reason)
        if cut is None:
            assert_same({0: result}, {0: uncut}, "stop strings that do not come")
            continue
        assert result.finish_reason is FinishReason.STOP
        assert result.token_ids == uncut.token_ids[: cut.num_tokens]
        assert result.text_length == cut.text_length
        assert result.num_iterations <= uncut.num_iterations
        assert (result.mean_confidence is None) == (cut.num_tokens == 0)
    assert {FinishReason.STOP, FinishReason.EOS} <= set(reasons)
    saved = [r.num_iterations < whole[i].num_iterations for i, r in found.items()]
    assert any(saved)
    alone = results_of(engine_of(attention, decoding, max_sequences=1), requests)
    assert_same(alone, found, "batch 1")


def test_what_is_refused() -> None:
    request = replace(mixed_requests(1)[0], stop=("x",))
    blank = replace(request, request_id=1, stop=("x", ""))
    deaf = Combination({"name": "dual"}, {"name": "threshold"}).engine(MODELS["bidirectional"])
    (result,) = deaf.results([request])
    assert result.error == "stop=['x']: the engine was given no text_of; leave it out"
    (result,) = engine_of("bidirectional", "threshold").results([blank])
    assert result.error == "stop=('x', ''): give texts that are not empty"
