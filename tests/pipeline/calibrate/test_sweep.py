"""A whole sweep over a table of made-up settings, whose true losses and costs are known: no model
runs, and the clock swings as on a machine that others use."""

import math
import random
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.calibrate.grid import Point
from pipeline.calibrate.measure import Measured
from pipeline.calibrate.rungs import Rung, part_rows, rungs_of
from pipeline.calibrate.sweep import Outcome, Sweep
from pipeline.stats.totals import Totals
from tests.pipeline.calibrate.test_halving import measured

NUM = 128
TOKENS = 40
"""Of each row."""


@dataclass(frozen=True)
class Setting:
    """`loss`: the share of rows that it gets wrong; a row costs `forwards` forwards of
    `per_forward` query tokens."""

    loss: float
    forwards: int
    per_forward: int

    @property
    def per_row_s(self) -> float:
        return self.forwards * (0.0004 + 0.00006 * self.per_forward)


REFERENCE = Setting(0.0, 80, 180)
FAST_AND_WRONG = {f"wrong{i}": Setting(0.2 + 0.02 * i, 3, 20 + i) for i in range(6)}
GOOD = {"fastest": Setting(0.0, 6, 20), "most": Setting(0.0, 4, 180)}
SLOW = {f"slow{i}": Setting(0.0, 9 + i, 30 + 5 * i) for i in range(24)}


@dataclass
class Table:
    """Stands for a Measurer."""

    settings: dict[str, Setting]
    seed: int = 0
    noise: float = 0.0
    bursts: dict[tuple[str, int], float] = field(default_factory=dict)
    """(setting, rung's rows) -> what its seconds are multiplied by."""
    tried: list[tuple[str, int]] = field(default_factory=list)

    def folder_of(self, point: Point) -> Any:
        return SimpleNamespace(parts_done=lambda: {0})

    def measure(self, point: Point, rung: Rung, reference: Point) -> Measured:
        name = point.decoding_name
        setting = REFERENCE if point is reference else self.settings[name]
        rows = [row for row in range(NUM) if rung.has(row // part_rows(NUM))]
        before = max((num for its, num in self.tried if its == name), default=0)
        self.tried.append((name, len(rows)))
        added = len(rows) - before
        luck = random.Random(f"{name} {len(rows)} {self.seed}")
        factor = math.exp(luck.gauss(0, self.noise)) * self.bursts.get((name, len(rows)), 1.0)
        wrong = random.Random(f"{name} {self.seed}").sample(range(NUM), round(setting.loss * NUM))
        found = measured(0.5, 0.0)
        found.point, found.rung, found.num_rows = point, rung, len(rows)
        found.values = {str(row): float(row not in wrong) for row in rows}
        found.tokens_per_forward = TOKENS / setting.forwards
        found.work = Totals(
            num_iterations=setting.forwards * -(-added // 16),
            num_forwards={"decode": setting.forwards * added},
            num_query_tokens={"decode": setting.forwards * setting.per_forward * added},
            num_generated_tokens=TOKENS * added,
            engine_s=setting.per_row_s * added * factor,
        )
        return found


def point(name: str) -> Point:
    return Point(cache_name="dual", decoding_name=name, cache=None, decoding=None)  # type: ignore[arg-type]


def swept(table: Table, is_full: bool = False) -> Outcome:
    sweep = Sweep(
        asked=SimpleNamespace(config=None),  # type: ignore[arg-type]
        output="nowhere",
        num_rows=NUM,
        within=0.01,
        is_full=is_full,
        tell=lambda line: None,
        points=[point(name) for name in table.settings],
        reference=point("reference"),
        rungs=rungs_of(NUM, is_full),
        measurer=table,  # type: ignore[arg-type]
    )
    return sweep.run()


def names(outcome: Outcome) -> tuple[object, object]:
    fastest, most = outcome.fastest, outcome.most_per_forward
    return fastest and fastest.point.decoding_name, most and most.point.decoding_name


ALL = {**FAST_AND_WRONG, **SLOW, **GOOD}


def test_both_speeds_have_their_answer() -> None:
    table = Table(ALL)
    outcome = swept(table)
    assert names(outcome) == ("fastest", "most")
    rows = Counter(num for _, num in table.tried)
    assert rows[8] == len(ALL) + 1
    assert rows[32] < len(ALL) / 2
    assert rows[NUM] < len(ALL) / 4
    assert len(outcome.everything) == len(ALL) + 1
    assert len({id(one) for one in outcome.everything}) == len(ALL) + 1
    assert names(swept(Table(ALL), is_full=True)) == ("fastest", "most")


@pytest.mark.parametrize("rung", [8, 32])
@pytest.mark.parametrize("name", list(GOOD))
def test_a_burst_on_an_early_rung_changes_nothing(name: str, rung: int) -> None:
    assert names(swept(Table(ALL, bursts={(name, rung): 4.0}))) == ("fastest", "most")


def test_lucky_seconds_of_another_change_nothing() -> None:
    bursts = {(f"slow{i}", rung): 0.4 for i in range(24) for rung in (8, 32) if (i + rung) % 3 == 0}
    assert names(swept(Table(ALL, bursts=bursts))) == ("fastest", "most")


def test_the_choice_is_steady_on_a_machine_that_swings() -> None:
    found = Counter(names(swept(Table(ALL, seed=seed, noise=0.3))) for seed in range(20))
    assert found["fastest", "most"] >= 19


def test_the_faster_ones_are_tried_until_one_is_within_the_loss() -> None:
    table = Table(ALL)
    outcome = swept(table)
    whole = [name for name, num in table.tried if num == NUM]
    assert whole[0] == "reference"
    assert {"fastest", "most"} <= set(whole)
    assert not set(whole) & set(SLOW), "they are slower than an answer that is known"
    why = {its.measured.point.decoding_name: its.why for its in outcome.dropped}
    assert "a faster one is within the loss" in why.values()


def test_if_none_is_within_the_loss_those_dropped_for_their_speed_follow() -> None:
    nearly = {f"nearly{i}": Setting(0.08, 3 + i % 2, 20 + i) for i in range(12)}
    table = Table({**nearly, "slow": Setting(0.0, 40, 40)}, seed=3)
    outcome = swept(table)
    assert names(outcome) == ("slow", "slow")
    assert ("slow", 32) not in table.tried, "it was dropped on the first rung"
    assert ("slow", NUM) in table.tried


def test_nothing_is_within_the_loss() -> None:
    outcome = swept(Table(FAST_AND_WRONG))
    assert names(outcome) == (None, None)
    assert len(outcome.everything) == len(FAST_AND_WRONG) + 1
