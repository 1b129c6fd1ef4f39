"""The arithmetic of the GPU benchmark: floors on real shapes, targets, kernels by time."""

from typing import Any

import pytest

from jobs.bench.gpu import steps
from jobs.bench.gpu.derive import idle
from jobs.bench.gpu.floors import Forward, Rates, floor_ms, touched_at_random, touched_by_more
from jobs.bench.gpu.measure import Iteration, idle_of_graphs_ms
from jobs.bench.gpu.models import TITLES, bench_model
from jobs.bench.gpu.profile import Activity, busy_us, by_time
from jobs.bench.gpu.report import markdown
from tests.bench.tiny_bench import record, tables


def a_measurement(**changes: Any) -> dict[str, Any]:
    """What a case of LLaDA-MoE gives."""
    its = {"num_sequences": 32, "num_iterations": 15, "num_query_tokens": 2048, "context": 1024}
    one = {
        "model": "llada_moe",
        "title": "LLaDA-MoE",
        "batch": 32,
        "committed": 4,
        "variant": "engine",
        "tokens_per_s": 5000.0,
        "padding": 0.01,
        "block": {"ms": 16.0, **its},
        "refresh": {"ms": 44.0, **its, "num_query_tokens": 9216, "num_sequences": 9},
    }
    return one | changes


# floors: published in the kernel study for these shapes, at 2.44 and 2.86 TB/s and 743 TFLOP/s
STUDY = [
    ("llada_moe", 1, 64, (5.86, 5.00)),
    ("llada_moe", 32, 64, (11.73, 10.48)),
    ("llada2_mini", 1, 163, (8.54, 7.29)),
    ("llada2_mini", 32, 256, (15.55, 13.52)),
    ("llada2_mini", 32, 199, (12.73, 11.11)),
    ("llada_8b", 1, 0, (6.37, 5.44)),
    ("llada_8b", 32, 0, (27.93, 26.86)),
]


@pytest.mark.parametrize(("name", "batch", "touched", "expected"), STUDY)
def test_floors_are_those_of_the_kernel_study(
    name: str, batch: int, touched: int, expected: tuple[float, float]
) -> None:
    model = bench_model(name)
    num_query_tokens = batch * model.block_length
    forward = Forward(
        num_query_tokens=num_query_tokens,
        num_sequences=batch,
        context=1024,
        num_asked=num_query_tokens,
        num_touched=touched,
    )
    floors = [floor_ms(model.config, forward, rate, 743e12) for rate in (2.44e12, 2.86e12)]
    assert floors == pytest.approx(expected, rel=0.01)


def test_touched_experts() -> None:
    mini = bench_model("llada2_mini").config.experts
    assert mini is not None
    assert touched_at_random(mini, 1) == pytest.approx(8)
    assert touched_at_random(mini, 32) == pytest.approx(163, abs=1)
    assert touched_by_more(mini, 128, 2) == 192
    assert touched_by_more(mini, 88, 1) == pytest.approx(88)


def test_the_five_models_have_their_published_shapes_and_defaults() -> None:
    models = {name: bench_model(name) for name in TITLES}
    shapes = {
        name: (model.block_length, model.cache_name, model.num_prompt_tokens, model.canvas_len)
        for name, model in models.items()
    }
    assert shapes == {
        "llada_moe": (64, "dual", 512, 1024),
        "llada2_mini": (32, "block_causal", 992, 1120),
        "llada_8b": (32, "dual", 512, 1024),
        "sdar_8b": (32, "block_causal", 992, 1120),
        "dream": (32, "dual", 512, 1024),
    }
    for model in models.values():
        for case in steps.FULL.cases:
            assert model.block_length % case.committed == 0


def test_idle_time_beside_graphs_is_of_whole_batches() -> None:
    def block(ms: float, forward_ms: float, count: int = 2) -> Iteration:
        return Iteration(
            ms=ms, forward_ms=forward_ms, num_forwards={"block": count}, num_query_tokens=64
        )

    refresh = Iteration(ms=90, forward_ms=10, num_forwards={"refresh": 2}, num_query_tokens=640)
    its = [refresh, block(7, 6.5), block(9, 8), block(5, 4.5), block(30, 1, count=1)]
    assert idle_of_graphs_ms(its) == 0.5
    one = a_measurement(
        profile={"busy_ms": 3.0, "kernels": [], "launches": 9, "other_ms": 0.0},
        block={"ms": 8.0, "num_sequences": 32, "num_query_tokens": 2048, "idle_ms": 0.4},
    )
    idle(one)
    assert one["block"]["idle_share"] == pytest.approx(0.05)


def test_busy_time_is_a_union() -> None:
    its = [Activity("a", 0, 10), Activity("b", 5, 12), Activity("c", 20, 30), Activity("a", 21, 22)]
    assert busy_us(its) == 22
    found = by_time(its, num_iterations=2)
    assert found["busy_ms"] == pytest.approx(0.011)
    assert found["launches"] == 2
    names = [kernel["name"] for kernel in found["kernels"]]
    assert sorted(names[:2]) == ["a", "c"] or names == ["a", "c", "b"]
    assert {kernel["name"]: kernel["launches"] for kernel in found["kernels"]}["a"] == 1


def test_targets_are_judged_and_the_largest_gap_is_named() -> None:
    one = a_measurement(profile={"busy_ms": 15.0, "kernels": [], "launches": 9, "other_ms": 0.0})
    plain = a_measurement(variant="plain", tokens_per_s=2500.0, experts_touched=64.0)
    bits = a_measurement(variant="any bits", block={**one["block"], "ms": 15.9})
    fast = a_measurement(batch=1, block={**one["block"], "ms": 6.0, "num_sequences": 1})
    its = record()
    its.about["card"] = "NVIDIA H100 80GB HBM3"
    its.models = [bench_model("llada_moe")]
    its.measurements = [one, plain, bits, fast]
    its.rates = Rates(copy_bytes_per_s=2.44e12, read_bytes_per_s=2.86e12, flop_per_s=743e12)
    its.save()
    verdicts = {(t["target"], t["limit"]): t["met"] for t in its.targets}
    assert verdicts["block iteration, LLaDA-MoE B=1", 6.2] is True
    assert verdicts["block iteration, LLaDA-MoE B=1", 4.0] is False
    assert verdicts["LLaDA-MoE B=32 over plain torch", 2.8] is False
    assert verdicts["card idle in a block iteration, B=32, worst", 0.03] is False
    assert verdicts["cost of batch invariance, worst", 0.03] is True
    assert verdicts["block iteration, LLaDA-8B B=32", 34.0] is None
    assert one["block"]["idle_ms"] == pytest.approx(1.0)
    head_ms = 1e3 * 2 * 2048 * 157184 * 2048 / 743e12
    # Half of the positions are requested: half a head, and less behind the last attention.
    assert one["block"]["floor_ms"]["copy"] == pytest.approx(11.73 - head_ms / 2 - 0.06, abs=0.02)
    text = markdown(its)
    assert "Missed the furthest: card idle in a block iteration, B=32, worst" in text
    assert "Furthest from its floor: LLaDA-MoE B=32" in text
    rows = {(row["target"], row["limit"]): row for row in tables(text)["Targets"]}
    assert rows["block iteration, LLaDA-MoE B=1", "at most 4 ms"]["met"].startswith("**no**, but")


def test_a_check_that_does_not_hold_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    its = record()
    assert its.exit_code == 0
    its.checks.append({"check": "a", "found": "1 of 3 rows differ", "holds": False})
    assert its.exit_code == 1
    assert tables(markdown(its))["Checks"][0]["holds"] == "**no**"
