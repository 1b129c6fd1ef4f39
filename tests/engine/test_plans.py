"""The iteration manager in arrays plans, packs and records as the plain one does, sequence by
sequence."""

import random
from collections import Counter
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import pytest

from engine.cache import CACHE_POLICIES
from engine.cache.base import CachePolicy, SpanKind, Spans
from engine.cache.block_causal import BlockCausalCache
from engine.cache.dkv import DelayedCache
from engine.cache.dual import DualCache
from engine.cache.prefix import PrefixCache
from engine.cache.vicinity import VicinityCache
from engine.config import EngineConfig
from engine.decoding.base import DecodingStrategy
from engine.decoding.dream import Dream
from engine.decoding.edit import Edit
from engine.decoding.threshold import Threshold
from engine.iterations import within_budget
from engine.model.authors import OPENINGS, Opening
from engine.sequences import Sequences
from tests.engine.lives import PAGE, Life, Setting
from tests.engine.plain.sequence import Sequence
from tests.engine.plain.spans import NEXT_SPAN, Span


@dataclass(frozen=True, slots=True)
class SkippingCache(CachePolicy):
    """Leaves out cached positions under block-causal attention too."""

    serves_block_causal: ClassVar[bool] = True
    serves_edits: ClassVar[bool] = False
    may_skip_cached: ClassVar[bool] = True

    def next_spans(self, s: Sequences) -> Spans:
        start_B = np.minimum(s.previous_block_start, s.attn_block_start)
        rest = Spans(start_B, s.visible_end, SpanKind.BLOCK, skips_cached=True)
        return Spans.where(s.num_iterations == 0, Spans(0, s.visible_end, SpanKind.REFRESH), rest)


def skipping(policy: SkippingCache, sequence: Sequence) -> Span:
    if sequence.num_iterations == 0:
        return Span(range(sequence.visible_end), SpanKind.REFRESH)
    positions = sorted(sequence.uncached_positions.union(sequence.masked_positions))
    return Span(positions, SpanKind.BLOCK)


POLICIES: dict[str, CachePolicy] = {name: policy() for name, policy in CACHE_POLICIES.items()} | {
    "vicinity-rare": VicinityCache(
        behind=3, ahead=0, warmup=0, refresh_every_blocks=3, refresh_every_iterations=5
    ),
    "vicinity": VicinityCache(warmup=1),  # by default the warm-up outlasts most lives
    "dual-often": DualCache(refresh_every_iterations=3),
    "prefix-often": PrefixCache(refresh_every_iterations=4),
    "dkv-once": DelayedCache(refresh_every_iterations=None),
    "block_causal-apart": BlockCausalCache(fused_commit=False),
    "block_causal-pieces": BlockCausalCache(fused_commit=False, prefill_tokens=9),
    "block_causal-fused-pieces": BlockCausalCache(prefill_tokens=1),
    "block_causal-sub": BlockCausalCache(sub_block_cache=True),
    "skipping": SkippingCache(),
}
STRATEGIES: dict[str, DecodingStrategy] = {
    "commits": Threshold(),
    "edits": Edit(max_post_iterations=3),
    "edits-at-once": Edit(max_post_iterations=0),
    "idles": Dream(),
}
ATTENTIONS = {"bidirectional": (8, None), "block-causal": (8, 8), "sub-blocks": (4, 8)}
MEMORY = {
    "ample": {"iteration_tokens": 4096, "cache_tokens": 64 * PAGE, "max_sequences": 6},
    "scarce": {"iteration_tokens": 60, "cache_tokens": 24 * PAGE, "max_sequences": 9},
}
LARGE = EngineConfig(cache_tokens=200 * PAGE, max_sequences=20, page_size=PAGE)
SERVED = [
    (policy, attention)
    for policy, made in POLICIES.items()
    for attention, (_, length) in ATTENTIONS.items()
    if (made.serves_bidirectional if length is None else made.serves_block_causal)
]


def openings(attention: str, is_shifted: bool, decoding: DecodingStrategy) -> tuple[Opening, ...]:
    """The rules for opening forwards that go with these."""
    if decoding.may_commit_nothing:
        return ("free",)
    if attention == "bidirectional":
        return ("free", "alone")
    return OPENINGS if is_shifted else ("free",)


SETTINGS = [
    pytest.param(
        *(policy, strategy, attention, is_shifted, opening),
        id="-".join((policy, strategy, attention, shifted, opening)),
    )
    for policy, attention in SERVED
    for strategy, decoding in STRATEGIES.items()
    for shifted, is_shifted in (("plain", False), ("shifted", True))
    if POLICIES[policy].serves_edits or not decoding.edits
    for opening in openings(attention, is_shifted, decoding)
]


@pytest.fixture(autouse=True)
def _plain_rule_of_the_skipping_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NEXT_SPAN, SkippingCache, skipping)


def setting(policy: str, strategy: str, attention: str, is_shifted: bool, **more: Any) -> Setting:
    block_length, attn_block_length = ATTENTIONS[attention]
    return Setting(
        policy=POLICIES[policy],
        decoding=STRATEGIES[strategy],
        block_length=block_length,
        attn_block_length=attn_block_length,
        is_shifted=is_shifted,
        **more,
    )


@pytest.mark.parametrize(("policy", "strategy", "attention", "is_shifted", "opening"), SETTINGS)
def test_arrays_and_plain_rules_agree(
    policy: str, strategy: str, attention: str, is_shifted: bool, opening: Opening
) -> None:
    events: Counter[str] = Counter()
    for seed, (memory, stop_at_eos) in enumerate(
        (memory, stop) for memory in MEMORY.values() for stop in (True, False)
    ):
        made = setting(
            policy,
            strategy,
            attention,
            is_shifted,
            opening=opening,
            stop_at_eos=stop_at_eos,
            config=EngineConfig(**memory, page_size=PAGE),
        )
        life = Life(made, seed)
        life.run(18)
        events += Counter(life.events)
    assert all(events[name] for name in ("eos", "length", "give_way", "partial", "whole")), events


STOPPING = [
    pytest.param(policy, strategy, attention, id="-".join((policy, strategy, attention)))
    for policy, attention in (
        *(("dual", "bidirectional"), ("dkv", "bidirectional")),
        *(("block_causal", "block-causal"), ("block_causal", "sub-blocks")),
    )
    for strategy, decoding in STRATEGIES.items()
    if POLICIES[policy].serves_edits or not decoding.edits
]


@pytest.mark.parametrize(("policy", "strategy", "attention"), STOPPING)
def test_stop_strings_end_sequences_as_the_plain_rules_say(
    policy: str, strategy: str, attention: str
) -> None:
    events: Counter[str] = Counter()
    for seed, stop_at_eos in enumerate((True, False, True)):
        config = EngineConfig(**MEMORY["ample"], page_size=PAGE)
        made = setting(
            *(policy, strategy, attention, seed == 2),
            stop_at_eos=stop_at_eos,
            config=config,
            stops=True,
        )
        life = Life(made, seed)
        life.run(60)
        assert not len(life.ours._stops), "a search outlived its sequence"
        events += Counter(life.events)
    assert all(events[name] for name in ("eos", "length", "stop")), events


@pytest.mark.parametrize(
    ("policy", "attention"), [each for each in SERVED if each[0] != "vicinity-rare"]
)
@pytest.mark.parametrize("is_shifted", [False, True])
def test_arrays_and_plain_rules_agree_with_guidance(
    policy: str, attention: str, is_shifted: bool
) -> None:
    """Guided sequences take two canvases, and stand with and without others in a plan."""
    events: Counter[str] = Counter()
    for seed, (memory, guided) in enumerate(
        (memory, guided) for memory in MEMORY.values() for guided in (0.5, 1.0)
    ):
        strategy = "edits" if POLICIES[policy].serves_edits and seed % 2 else "commits"
        made = setting(
            *(policy, strategy, attention, is_shifted),
            stop_at_eos=True,
            config=EngineConfig(**memory, page_size=PAGE),
            guided=guided,
        )
        life = Life(made, seed)
        life.run(14)
        events += Counter(life.events)
    assert all(events[name] for name in ("mixed", "give_way", "partial", "whole")), events


def test_the_lives_contain_failures_and_aborts() -> None:
    """Confidences that are NaN, spans that never fit into memory, and aborts are compared too."""
    made = setting(
        *("block_causal", "edits", "sub-blocks", True),
        opening="alone",
        stop_at_eos=True,
        config=EngineConfig(**MEMORY["scarce"], page_size=PAGE),
    )
    life = Life(made, 10, failing=0.3)
    life.run(120)
    assert all(life.events.get(name) for name in ("error", "hopeless", "abort")), life.events


def take(s: Sequences, places: np.ndarray) -> Sequences:
    tables = ("counts_2B", "decoding_counts_3B")
    return Sequences(
        **{
            field.name: getattr(s, field.name)[(..., places) if field.name in tables else places]
            for field in fields(Sequences)
        }
    )


def spans_of(policy: CachePolicy, s: Sequences) -> list[tuple[int, ...]]:
    values = [np.broadcast_to(value, len(s)) for value in policy.next_spans(s)]
    return list(zip(*(value.tolist() for value in values), strict=True))


@pytest.mark.parametrize(("policy", "attention"), SERVED)
def test_a_span_does_not_depend_on_the_other_sequences(policy: str, attention: str) -> None:
    """The spans of sequences alone, and of any choice of them in any order, are the same."""
    made = setting(
        *(policy, "commits", attention, True),
        opening="alone",
        stop_at_eos=True,
        config=LARGE,
    )
    life, draw = Life(made, 5), np.random.default_rng(5)
    different: set[tuple[int, ...]] = set()
    for number in range(60):
        life.ours.waiting.append(life.request(number))
        life.plain.waiting.append(life.ours.waiting[-1])
        life.iterate()
        s = life.ours.live.arrays
        spans = spans_of(made.policy, s)
        different.update(span[2:] for span in spans)
        for place, span in enumerate(spans):
            assert spans_of(made.policy, take(s, np.array([place]))) == [span]
        chosen = draw.integers(len(s), size=2 * len(s))
        assert spans_of(made.policy, take(s, chosen)) == [spans[place] for place in chosen]
    assert len(different) > 1 or policy == "none"


@pytest.mark.parametrize("seed", range(20))
def test_the_budget_is_filled_in_order(seed: int) -> None:
    draw = random.Random(seed)
    costs = [draw.choice([1, 2, 8, 9, 30]) for _ in range(draw.randint(1, 40))]
    budget, taken, total = draw.randint(1, 200), [], 0
    for cost in costs:
        taken.append(not any(taken) or total + cost <= budget)
        total += cost * taken[-1]
    assert within_budget(np.array(costs), budget).tolist() == taken
