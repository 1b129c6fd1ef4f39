"""Measures generated tokens per second of three ways to run one model over the same prompts.

(a) llada    LLaDA's own loop: one sequence at a time, the whole canvas in every forward, one token
             per iteration, to the end of the generation region. Runs only the first prompts, since
             it is slow, so the speed-up over it is rough.
(b) lockstep lock-step batching, with the same cache policy and decoding strategy as (c).
(c) engine   iteration-level batching with decoding=threshold and cache=dual, or
             cache=block_causal for a block-causal model.

Only tokens before EOS count; seconds are wall time of the whole loop. Rounds of (b) and (c)
alternate and are compared pairwise, because a machine's speed drifts. Their token ids must be equal
row by row in float32 on CPU; on other devices and dtypes the rows that differ are counted. The
output of all three is scored with the rows' own tests.
"""

import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.cache import CACHE_POLICIES
from engine.cache.base import CachePolicy
from engine.cache.none import NoCache
from engine.config import EngineConfig
from engine.decoding.base import DecodingStrategy
from engine.decoding.fixed import Fixed
from engine.decoding.threshold import Threshold
from engine.engine import DiffusionEngine
from jobs.bench.lockstep import LockStepManager
from jobs.bench.workload import Run, Workload, load_workload, provenance

EXACT = ("cpu", "float32")
"""The device and dtype in which rounding does not depend on the batch's shape."""


def run(
    *,
    model: Path,
    prompts: Path,
    rows: int | None,
    rounds: int,
    max_sequences: int,
    max_new_tokens: int,
    dtype: str,
    device: str | None,
    cache: str | None,
    llada_rows: int,
) -> dict[str, Any]:
    """Run all three, print the table, return the report.

    Raises:
        RuntimeError: lock-step and engine give different token ids in float32 on CPU.
    """
    workload = load_workload(
        model=model,
        prompts=prompts,
        rows=rows,
        max_new_tokens=max_new_tokens,
        dtype=dtype,
        device=device,
    )
    print(workload.title)
    is_block_causal = workload.model.config.block_length is not None
    policy = CACHE_POLICIES[cache or ("block_causal" if is_block_causal else "dual")]()
    bench = Bench(workload, max_sequences, policy)
    workload.run(bench.engine(), num_requests=64)
    lockstep, engine = [], []
    for _ in range(rounds):
        lockstep.append(workload.run(bench.lockstep()))
        engine.append(workload.run(bench.engine()))
    num_different = count_different([*lockstep, *engine])
    if num_different and (workload.device, dtype) == EXACT:
        raise RuntimeError(f"lock-step and engine give different tokens in {num_different} rows")
    measured = {
        "llada": [workload.run(bench.llada(), num_requests=llada_rows)],
        "lockstep": lockstep,
        "engine": engine,
    }
    report = {name: summary(runs, workload) for name, runs in measured.items()}
    gains = gains_of(report, lockstep, engine, num_different)
    print_table(report, gains)
    return {
        "benchmark": "engine",
        "model": model.name,
        "cache": type(policy).__name__,
        "num_prompts": len(workload.requests),
        "num_prompts_llada": len(measured["llada"][0].results),
        **gains,
        **report,
        "config": asdict(bench.config) | {"max_new_tokens": max_new_tokens, "dtype": dtype},
        **provenance(workload.device),
    }


class Bench:
    """Makes the three engines that are compared."""

    def __init__(self, workload: Workload, max_sequences: int, policy: CachePolicy) -> None:
        self.config = workload.config(max_sequences)
        self.alone = workload.config(1, stop_at_eos=False)
        self.model = workload.model
        self.policy = policy

    def llada(self) -> DiffusionEngine:
        return self._make(self.alone, Fixed(), NoCache())

    def lockstep(self) -> DiffusionEngine:
        engine = self.engine()
        engine.iterations = LockStepManager(
            self.config,
            num_pages=engine.num_pages,
            rules=engine.rules,
            policy=self.policy,
            canvases=engine.canvases,
        )
        return engine

    def engine(self) -> DiffusionEngine:
        return self._make(self.config, Threshold(), self.policy)

    def _make(
        self, config: EngineConfig, decoding: DecodingStrategy, cache: CachePolicy
    ) -> DiffusionEngine:
        return DiffusionEngine(self.model, config=config, decoding=decoding, cache=cache)


def count_different(runs: list[Run]) -> int:
    """The number of rows whose tokens are not the same in all runs, lock-step and engine alike."""
    tokens = [[result.token_ids for result in run.results] for run in runs]
    return sum(any(other != row[0] for other in row) for row in zip(*tokens, strict=True))


def summary(runs: list[Run], workload: Workload) -> dict[str, Any]:
    """The figures of the run with the median speed."""
    run = sorted(runs, key=lambda one: one.tokens_per_s)[len(runs) // 2]
    return run.figures() | {"pass_at_1": workload.pass_at_1(run.results)}


def gains_of(
    report: dict[str, dict[str, Any]], lockstep: list[Run], engine: list[Run], num_different: int
) -> dict[str, Any]:
    ratios = [c.tokens_per_s / b.tokens_per_s for b, c in zip(lockstep, engine, strict=True)]
    over_llada = report["engine"]["tokens_per_s"] / report["llada"]["tokens_per_s"]
    return {
        "engine_over_llada": over_llada,
        "engine_over_lockstep": statistics.median(ratios),
        "engine_over_lockstep_by_round": ratios,
        "num_rows_different_from_lockstep": num_different,
        "engine_share_outside_forward": report["engine"]["share_outside_forward"],
    }


def print_table(report: dict[str, dict[str, Any]], gains: dict[str, Any]) -> None:
    columns = {
        "tokens/s": "tokens_per_s",
        "wall s": "wall_s",
        "TPF": "tokens_per_forward",
        "query tok/tok": "query_tokens_per_token",
        "outside fwd": "share_outside_forward",
        "pass@1": "pass_at_1",
    }
    print(f"{'':10}" + "".join(f"{title:>15}" for title in columns))
    for name in ("llada", "lockstep", "engine"):
        cells = "".join(f"{report[name][key]:15.3f}" for key in columns.values())
        print(f"{name:10}{cells}")
    print(f"engine over llada     {gains['engine_over_llada']:6.2f} x")
    rounds = ", ".join(f"{ratio:.2f}" for ratio in gains["engine_over_lockstep_by_round"])
    print(f"engine over lock-step {gains['engine_over_lockstep']:6.2f} x  (rounds: {rounds})")
    none = report["engine"]["percent_for_no_sequence"]
    print(f"query tokens of the engine that no result accounts for: {none:.2f} %")
