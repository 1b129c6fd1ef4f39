"""Random lives of sequences, without a model: the same requests, commits, memory failures and
aborts for the engine's iteration manager and for the plain one."""

import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from engine.batch import HostBatch, pack
from engine.cache.base import CachePolicy, SpanKind
from engine.canvas import Canvases
from engine.config import EngineConfig
from engine.decoding.base import DecodingStrategy
from engine.iterations import IterationManager
from engine.model.authors import Opening
from engine.model.config import ModelConfig
from engine.plans import Plan
from engine.request import Request, Result
from engine.rules import SequenceRules
from engine.sampling import HostFilters
from tests.engine.plain import batch as plain_batch
from tests.engine.plain import iterations as plain_iterations
from tests.engine.plain import rules as plain_rules
from tests.tiny import tiny_config

EOS = (18, 19)
MASK = 20
PAGE = 8
TEXTS = (
    *(b"a", b"b", b"c", b"ab", b"ba", b" a", b"abc", b"", b"\xe2", b"\x82\xac", b"\xac", b"\xff"),
    *(b"cab", b"d", b"\n", b"a\n", b"bb", b"\xe2\x82"),
)
"""What each token stands for: bytes, of which some are parts of characters."""
STOPS = ("ab", "b", "abc", "cab", "\n", "\u20ac", "a\u20ac", "bba", "\ufffd", "aab", "abcab")


def text_of(token_ids: list[int]) -> str:
    return b"".join(TEXTS[token_id] for token_id in token_ids).decode(errors="replace")


@dataclass(frozen=True, kw_only=True)
class Setting:
    policy: CachePolicy
    decoding: DecodingStrategy
    block_length: int
    attn_block_length: int | None
    is_shifted: bool
    opening: Opening = "free"
    stop_at_eos: bool
    config: EngineConfig
    stops: bool = False
    """Whether requests have stop strings."""
    guided: float = 0.0
    """The share of requests with guidance."""

    @property
    def model(self) -> ModelConfig:
        return replace(
            tiny_config(), block_length=self.attn_block_length, is_shifted=self.is_shifted
        )

    def rules(self) -> dict[str, Any]:
        names = (
            *("block_length", "attn_block_length", "is_shifted", "opening", "stop_at_eos"),
            "decoding",
        )
        return {name: getattr(self, name) for name in names} | {"eos_token_ids": EOS}

    @property
    def num_pages(self) -> int:
        assert self.config.cache_tokens is not None
        return self.config.cache_tokens // PAGE


class Life:
    """Runs both managers side by side and asserts that they agree on everything."""

    def __init__(self, setting: Setting, seed: int, failing: float = 0.05) -> None:
        """`failing`: the share of forwards that run out of memory."""
        self.setting = setting
        self.draw = random.Random(seed)
        self.failing = failing
        self.events: dict[str, int] = {}
        common = {"num_pages": setting.num_pages, "policy": setting.policy}
        canvases = Canvases(setting.num_pages * PAGE, MASK, torch.device("cpu"))
        rules = SequenceRules(**setting.rules())
        self.ours = IterationManager(
            setting.config, **common, rules=rules, canvases=canvases, text_of=text_of
        )
        plain = plain_rules.SequenceRules(**setting.rules(), text_of=text_of)
        self.plain = plain_iterations.IterationManager(setting.config, **common, rules=plain)

    def run(self, num_requests: int) -> None:
        added = 0
        while added < num_requests or self.plain.waiting or self.plain.live:
            while added < num_requests and self.draw.random() < 0.5:
                request = self.request(added)
                self.ours.waiting.append(request)
                self.plain.waiting.append(request)
                added += 1
            if self.draw.random() < 0.005:
                self.count("abort")
                self.ours.abort()
                self.plain.abort()
            self.iterate()

    def request(self, request_id: int) -> Request:
        draw, filters = self.draw, random.Random(request_id)
        is_guided = self.setting.guided > 0 and draw.random() < self.setting.guided
        return Request(
            request_id=request_id,
            prompt_ids=[draw.randrange(18) for _ in range(draw.randint(1, 30))],
            max_new_tokens=draw.randint(1, 30),
            temperature=draw.choice([0, 0.0, 0.7]),
            top_k=filters.choice([None, None, 3]),
            top_p=filters.choice([None, None, 0.5]),
            confidence=filters.choice([None, "filtered"]),
            guidance=draw.choice([0.5, 2]) if is_guided else 0.0,
            seed=draw.randrange(-(2**63), 2**63),
            stop=self.stop(),
        )

    def stop(self) -> tuple[str, ...]:
        if not self.setting.stops or self.draw.random() < 0.2:
            return ()
        return tuple(self.draw.sample(STOPS, self.draw.randint(1, 3)))

    def iterate(self) -> None:
        ours, plain = self.ours.schedule(), self.plain.schedule()
        assert (ours is not None) == bool(plain)
        if ours is None:
            return
        self.assert_same_plan(ours, plain)
        if self.draw.random() < self.failing:
            gone, sequence = self.ours.give_way(ours), self.plain.give_way(plain)
            assert gone == (None if sequence is None else sequence.request)
            self.count("give_way" if gone is None else "hopeless")
        else:
            tokens, confidences = self.commits(plain)
            report = np.array([tokens, np.array(confidences, dtype=np.float32).view(np.int32)])
            results = self.ours.advance(ours, report.astype(np.int32))
            assert_same_results(results, self.plain.advance(plain, tokens, confidences))
            for result in results:
                self.count(result.finish_reason.value)
        self.assert_same_state()

    def commits(self, plan: plain_iterations.Plan) -> tuple[list[int], list[float]]:
        """Random commits at all requested positions: at least one per sequence with a mask unless
        the strategy may commit nothing, and those that engine/decide.py commits at once because
        their logits are settled."""
        tokens: list[int] = []
        confidences: list[float] = []
        speed = self.draw.choice([0.1, 0.5, 0.9])
        for sequence, span in plan:
            asked = list(sequence.requested_positions) if span.is_decoding else []
            masked = [position for position in asked if position in sequence.masked_positions]
            first = self.draw.choice(masked) if masked else None
            if self.setting.decoding.may_commit_nothing and self.draw.random() < 0.2:
                first = None
            is_broken = self.draw.random() < 0.003
            for position in asked:
                chance = speed if position in masked else 0.1
                commits = position == first or self.draw.random() < chance
                commits |= position in masked and self.is_settled(position)
                token = self.draw.choice([*range(18), *EOS])
                tokens.append(token if commits else -1)
                confidences.append(float(np.float32(self.draw.random())))
            if is_broken and asked:
                confidences[-self.draw.randint(1, len(asked))] = float("nan")
        return tokens, confidences

    def is_settled(self, position: int) -> bool:
        length = self.setting.attn_block_length
        if self.setting.opening == "free" or length is None:
            return False
        return self.setting.is_shifted and position % length == 0

    def assert_same_plan(self, ours: Plan, plain: plain_iterations.Plan) -> None:
        places = np.arange(len(self.ours.live))[ours.places].tolist()
        requests = [self.ours.live.requests[place] for place in places]
        assert requests == [sequence.request for sequence, _ in plain]
        kinds = np.broadcast_to(ours.kind, len(ours)).tolist()
        assert kinds == [span.kind for _, span in plain]
        assert ours.by_kind() == by_kind(plain)
        assert ours.num_query_tokens == sum(plain_iterations.cost(*each) for each in plain)
        num_guided = sum(sequence.num_canvases == 2 for sequence, _ in plain)
        assert ours.num_guided == num_guided
        self.count("mixed" if 0 < num_guided < len(plain) else "unmixed")
        decoding = np.arange(len(self.ours.live))[ours.decoding].tolist()
        assert decoding == [
            place for place, (_, span) in zip(places, plain, strict=True) if span.is_decoding
        ]
        self.count("partial" if len(plain) < len(self.plain.live) else "whole")
        model, softens_canvas = self.setting.model, self.setting.attn_block_length is None
        packed = pack(ours, model, softens_canvas)
        assert_same_batch(packed, plain_batch.pack(plain, model, softens_canvas))
        self.count("softens behind" if packed.softened else "softens nothing behind")

    def assert_same_state(self) -> None:
        live, plain = self.ours.live, self.plain.live
        assert live.requests == [sequence.request for sequence in plain]
        assert live.num_guided == sum(sequence.num_canvases == 2 for sequence in plain)
        assert self.ours.waiting == self.plain.waiting
        assert self.ours.token_budget == self.plain.token_budget
        assert vars(self.ours.pages) == vars(self.plain.pages)
        for name in NUMBERS:
            if name == "num_cached" and self.setting.attn_block_length is None:
                continue
            expected = [getattr(sequence, name) for sequence in plain]
            assert getattr(live.arrays, name).tolist() == expected, name
        for place, sequence in enumerate(plain):
            start, length = sequence.block_start, len(live.arrays.is_masked_BL[place])
            for name, positions in (
                ("is_masked_BL", sequence.masked_positions),
                ("is_asked_BL", sequence.asked_positions),
            ):
                expected = [start + offset in positions for offset in range(length)]
                assert getattr(live.arrays, name)[place].tolist() == expected, name
        assert live.arrays.num_masked.tolist() == [len(s.masked_positions) for s in plain]
        assert live.arrays.eos_position.tolist() == [
            s.end_position if s.eos_position is None else s.eos_position for s in plain
        ]

    def count(self, event: str) -> None:
        self.events[event] = self.events.get(event, 0) + 1


NUMBERS = (
    *("first_page", "first_slot", "twin_offset", "canvas_len", "num_prompt_tokens", "end_position"),
    *("first_block_start", "block_start", "block_end", "block_index", "previous_block_start"),
    *("attn_block_start", "visible_end", "num_masked_at_block_start", "num_iterations_in_block"),
    *("opens", "num_iterations_since_opening"),
    *("num_post_iterations", "num_cached", "num_iterations", "num_decoding_iterations"),
    *("num_iterations_since_refresh", "num_refreshes", "num_query_tokens", "num_skipped"),
    *("has_changed", "has_failed_alone"),
)


def by_kind(plan: plain_iterations.Plan) -> list[tuple[SpanKind, int, int]]:
    """The number of spans of each kind, and of their query tokens."""
    lengths = {
        kind: [plain_iterations.cost(*each) for each in plan if each[1].kind is kind]
        for kind in SpanKind
    }
    return [(kind, len(each), sum(each)) for kind, each in lengths.items() if each]


def assert_same_batch(ours: HostBatch, plain: HostBatch) -> None:
    for name in HostBatch._fields:
        one, other = getattr(ours, name), getattr(plain, name)
        assert type(one) is type(other), name
        if isinstance(one, HostFilters) and isinstance(other, HostFilters):
            assert one.views == other.views
            one, other = (np.array([x.view_B, x.top_k_B, x.top_p_B]) for x in (one, other))
        # One array, or the arrays of the twins or of softened positions.
        for x, y in zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]:
            np.testing.assert_array_equal(x, y, err_msg=name, strict=isinstance(x, np.ndarray))
    assert ours.any_sampled == plain.any_sampled


def assert_same_results(ours: list[Result], plain: list[Result]) -> None:
    assert ours == plain
