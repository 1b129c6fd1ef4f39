"""Generated tokens per second of three ways to run one model over one set of prompts.

(a) llada    LLaDA's own procedure: one sequence at a time, the whole canvas in every forward, one
             token per iteration, to the end of the generation region.
(b) lockstep batches in lock-step, with the same cache policy and decoding strategy as (c).
(c) engine   iteration-level batching, dual cache, threshold.

Tokens are those before EOS, seconds are wall seconds of the whole loop. (b) and (c) are run in turn
and compared round by round, since machines drift; in float32 on CPU their token ids must be equal,
row by row, elsewhere the rows that differ are counted. All three are scored with the rows' own
tests.
"""

import os
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import torch

from engine.cache.base import CachePolicy
from engine.cache.dual import DualCache
from engine.cache.none import NoCache
from engine.decoding.base import DecodingStrategy
from engine.decoding.fixed import Fixed
from engine.decoding.threshold import Threshold
from engine.engine import DiffusionEngine, EngineConfig
from engine.model.load import load_model
from engine.model.transformer import Transformer
from engine.request import Request, Result
from jobs.bench.lockstep import LockStepManager
from pipeline.config import PromptConfig
from pipeline.prompt import Prompter
from pipeline.sandbox import Limits, run_program
from pipeline.tasks import TASKS
from pipeline.versions import git_revision, library_versions

DEMO = Path(__file__).parent.parent / "demo" / "model"
PROMPTS = Path(__file__).parent.parent / "demo" / "prompts.parquet"


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
) -> dict[str, Any]:
    """Run all three, print the table, return the report.

    Raises:
        RuntimeError: lock-step and engine do not give the same token ids.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(os.cpu_count() or 1)
    transformer = load_model(model, getattr(torch, dtype), device)
    prompter = Prompter(model, PromptConfig(), transformer.config.max_positions - max_new_tokens)
    table = pq.read_table(prompts).slice(0, rows).to_pylist()
    requests = [
        Request(request_id=i, prompt_ids=prompter.token_ids(row), max_new_tokens=max_new_tokens)
        for i, row in enumerate(table)
    ]
    bench = Bench(transformer, requests, max_sequences)
    print(f"{len(requests)} prompts, {max_new_tokens} new tokens each at most, {device} {dtype}")
    bench.engine(warm_up=True)
    measured: dict[str, list[dict[str, Any]]] = {"lockstep": [], "engine": []}
    for _ in range(rounds):
        measured["lockstep"].append(bench.lockstep())
        measured["engine"].append(bench.engine())
    num_different = count_different(measured)
    if num_different and (device, dtype) == ("cpu", "float32"):
        raise RuntimeError(f"lock-step and engine differ in {num_different} rows")
    measured["llada"] = [bench.llada()]
    report = {name: summary(runs, table, prompter) for name, runs in measured.items()}
    ratios = [
        c["tokens_per_s"] / b["tokens_per_s"]
        for b, c in zip(measured["lockstep"], measured["engine"], strict=True)
    ]
    gains = {
        "engine_over_llada": report["engine"]["tokens_per_s"] / report["llada"]["tokens_per_s"],
        "engine_over_lockstep": statistics.median(ratios),
        "engine_over_lockstep_by_round": ratios,
        "num_rows_different_from_lockstep": num_different,
        "engine_share_outside_forward": report["engine"]["share_outside_forward"],
    }
    show(report, gains)
    return {
        "benchmark": "engine",
        "num_prompts": len(requests),
        **gains,
        **report,
        "config": asdict(bench.config) | {"max_new_tokens": max_new_tokens, "dtype": dtype},
        "hardware": hardware(device),
        "versions": library_versions(),
        "git_revision": git_revision(),
    }


class Bench:
    """One model and one list of requests, run in three ways."""

    def __init__(self, model: Transformer, requests: list[Request], max_sequences: int) -> None:
        longest = max(len(r.prompt_ids) + r.max_new_tokens for r in requests)
        self.config = EngineConfig(
            max_sequences=max_sequences, cache_tokens=max_sequences * (longest + 16)
        )
        self.model = model
        self.requests = requests

    def llada(self) -> dict[str, Any]:
        config = EngineConfig(
            max_sequences=1, cache_tokens=self.config.cache_tokens, stop_at_eos=False
        )
        return self._measure(self._make(config, Fixed(), NoCache()))

    def lockstep(self) -> dict[str, Any]:
        policy = DualCache()
        engine = self._make(self.config, Threshold(), policy)
        eos = self.model.config.eos_token_id
        engine.iterations = LockStepManager(self.config, policy, engine.canvases, eos)
        return self._measure(engine)

    def engine(self, warm_up: bool = False) -> dict[str, Any]:
        engine = self._make(self.config, Threshold(), DualCache())
        return self._measure(engine, self.requests[:64] if warm_up else None)

    def _make(
        self, config: EngineConfig, decoding: DecodingStrategy, cache: CachePolicy
    ) -> DiffusionEngine:
        return DiffusionEngine(self.model, config=config, decoding=decoding, cache=cache)

    def _measure(
        self, engine: DiffusionEngine, requests: list[Request] | None = None
    ) -> dict[str, Any]:
        start = time.perf_counter()
        results = list(engine.results(requests or self.requests))
        wall_s = time.perf_counter() - start
        results.sort(key=lambda result: cast(int, result.request_id))
        stats = engine.stats
        return {
            "results": results,
            "wall_s": wall_s,
            "tokens_per_s": stats.num_generated_tokens / wall_s,
            "num_generated_tokens": stats.num_generated_tokens,
            "num_iterations": stats.num_iterations,
            "num_forwards": stats.num_forwards,
            "num_query_tokens": stats.num_query_tokens,
            "share_outside_forward": 1 - stats.forward_s / wall_s,
        }


def count_different(measured: dict[str, list[dict[str, Any]]]) -> int:
    """Rows whose tokens are not the same in every run, of lock-step and engine both."""
    runs = [one["results"] for of_one in measured.values() for one in of_one]
    tokens = [[result.token_ids for result in results] for results in runs]
    return sum(any(other != row[0] for other in row) for row in zip(*tokens, strict=True))


def summary(
    runs: list[dict[str, Any]], table: list[dict[str, Any]], prompter: Prompter
) -> dict[str, Any]:
    """The round of median speed, with what follows from its counts."""
    run = sorted(runs, key=lambda one: one["tokens_per_s"])[len(runs) // 2]
    tokens = run["num_generated_tokens"]
    figures = {key: value for key, value in run.items() if key != "results"}
    return figures | {
        "tokens_per_forward": tokens / sum(run["num_forwards"].values()),
        "query_tokens_per_token": sum(run["num_query_tokens"].values()) / tokens,
        "pass_at_1": pass_at_1(run["results"], table, prompter),
    }


def pass_at_1(results: list[Result], table: list[dict[str, Any]], prompter: Prompter) -> float:
    task = TASKS["functions"]
    programs = [
        task.program(row, prompter.text(result.token_ids))
        for row, result in zip(table, results, strict=True)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(pool.map(lambda program: run_program(program, Limits()), programs))
    return sum(outcome.passed for outcome in outcomes) / len(outcomes)


def show(report: dict[str, dict[str, Any]], gains: dict[str, Any]) -> None:
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


def hardware(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores ({platform.processor() or platform.machine()})"
