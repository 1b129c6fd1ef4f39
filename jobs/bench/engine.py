"""Measures generated tokens per second of three ways to run one model over the same prompts.

(a) llada    LLaDA's own loop: one sequence at a time, the whole canvas in every forward, one token
             per iteration, to the end of the generation region. Runs only the first prompts, since
             it is slow, so the speed-up over it is rough.
(b) lockstep lock-step batching, with the same cache policy and decoding strategy as (c).
(c) engine   iteration-level batching with decoding=threshold and cache=dual, or
             cache=block_causal for a block-causal model.

(b) and (c) are first tried with several batches (sequences at once) on a few prompts, taken evenly
from all. All prompts are then measured with the batch that suited each best, which need not be the
same, and with one batch for both. Best against best is what a user gains; an equal batch shows what
lock-step waiting costs.

Only tokens before EOS count; seconds are wall time of the whole loop. Rounds of (b) and (c)
alternate and are compared pairwise, because a machine's speed drifts. On a CPU that others use at
the same time, the ratio of CPU seconds is the steadier one, with OMP_NUM_THREADS=1 (several threads
wait for each other busily). Their token ids must be equal
row by row, in all batches, in float32 on CPU; on other devices and dtypes the rows that differ are
counted. The output of all three is scored with the rows' own tests.
"""

import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from engine.cache import CACHE_POLICIES
from engine.cache.base import CachePolicy
from engine.cache.none import NoCache
from engine.config import EngineConfig
from engine.decoding.base import DecodingStrategy
from engine.decoding.fixed import Fixed
from engine.decoding.threshold import Threshold
from engine.engine import DiffusionEngine
from engine.request import Request
from jobs.bench.lockstep import LockStepManager
from jobs.bench.provenance import provenance
from jobs.bench.workload import Run, Workload, load_workload, others_share

EXACT = ("cpu", "float32")
"""The device and dtype in which rounding does not depend on the batch's shape."""
BATCHES = (1, 2, 4, 8, 16, 32)
RIVALS = ("lockstep", "engine")


class Entry(NamedTuple):
    """What is run: one of RIVALS, with so many sequences at once."""

    rival: str
    batch: int

    @property
    def title(self) -> str:
        return f"{self.rival}, {self.batch} at once"


Runs = dict[Entry, list[Run]]


def run(
    *,
    model: Path,
    prompts: Path,
    rows: int | None,
    rounds: int,
    batches: list[int],
    trial_rows: int,
    max_sequences: int,
    max_new_tokens: int,
    dtype: str,
    device: str | None,
    cache: str | None,
    llada_rows: int,
) -> dict[str, Any]:
    """Run all three, print the tables, return the report. `max_sequences` is the equal batch.

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
    cache = cache or ("block_causal" if is_block_causal else "dual")
    bench, is_exact = Bench(workload, CACHE_POLICIES[cache]()), (workload.device, dtype) == EXACT
    with others_share() as others:
        tried, best = try_batches(bench, batches, trial_rows, rounds, is_exact)
        pairs = {"best": best, "equal": [Entry(rival, max_sequences) for rival in RIVALS]}
        runs = measure(bench, [*pairs["best"], *pairs["equal"]], rounds)
        num_different = check_same(runs, is_exact)
        llada = workload.run(bench.llada(), workload.requests[:llada_rows])
    compared = compare(workload, pairs, runs, llada)
    print(f"other processes had {100 * others.share:.0f} % of the machine's cores meanwhile")
    return {
        "benchmark": "engine",
        "model": model.name,
        "cache": cache,
        "num_prompts": len(workload.requests),
        "num_prompts_llada": len(llada.results),
        "tried": tried,
        "best_batch": {entry.rival: entry.batch for entry in best},
        "equal_batch": max_sequences,
        **compared,
        "num_rows_different_from_lockstep": num_different,
        "others_share_of_cores": others.share,
        "config": asdict(workload.config(max_sequences))
        | {"max_new_tokens": max_new_tokens, "dtype": dtype},
        **provenance(workload.device),
    }


class Bench:
    """Makes the three engines that are compared."""

    def __init__(self, workload: Workload, policy: CachePolicy) -> None:
        self.workload = workload
        self.policy = policy

    def llada(self) -> DiffusionEngine:
        return self._make(self.workload.config(1, stop_at_eos=False), Fixed(), NoCache())

    def lockstep(self, batch: int) -> DiffusionEngine:
        engine = self.engine(batch)
        engine.iterations = LockStepManager(
            self.workload.config(batch),
            num_pages=engine.num_pages,
            rules=engine.rules,
            policy=self.policy,
            canvases=engine.canvases,
        )
        return engine

    def engine(self, batch: int) -> DiffusionEngine:
        return self._make(self.workload.config(batch), Threshold(), self.policy)

    def run(self, entry: Entry, requests: list[Request] | None = None) -> Run:
        make = self.lockstep if entry.rival == "lockstep" else self.engine
        return self.workload.run(make(entry.batch), requests)

    def _make(
        self, config: EngineConfig, decoding: DecodingStrategy, cache: CachePolicy
    ) -> DiffusionEngine:
        return DiffusionEngine(self.workload.model, config=config, decoding=decoding, cache=cache)


def try_batches(
    bench: Bench, batches: list[int], num_rows: int, rounds: int, is_exact: bool
) -> tuple[dict[str, Any], list[Entry]]:
    """Run both rivals with every batch on `num_rows` prompts, once a round, and print the best
    speed of each. Returns these, and each rival's fastest entry.

    Raises:
        RuntimeError: as `check_same`.
    """
    requests = bench.workload.spread(num_rows)
    bench.run(Entry("engine", max(batches)), requests)  # the first run is slower than the others
    entries = [Entry(rival, batch) for batch in batches for rival in RIVALS]
    runs: Runs = {entry: [] for entry in entries}
    for _ in range(rounds):
        for entry in entries:
            runs[entry].append(bench.run(entry, requests))
    check_same(runs, is_exact)
    speeds = {entry: max(run.tokens_per_s for run in done) for entry, done in runs.items()}
    print(f"\ntokens/s on {len(requests)} prompts, by sequences at once")
    print(f"{'':10}" + "".join(f"{batch:>9}" for batch in batches))
    for rival in RIVALS:
        print(f"{rival:10}" + "".join(f"{speeds[Entry(rival, b)]:9.0f}" for b in batches))
    tried = {rival: {str(b): speeds[Entry(rival, b)] for b in batches} for rival in RIVALS}
    best = [
        max((e for e in entries if e.rival == rival), key=speeds.__getitem__) for rival in RIVALS
    ]
    return {"num_prompts": len(requests), "tokens_per_s": tried}, best


def measure(bench: Bench, entries: list[Entry], rounds: int) -> Runs:
    """Run each distinct entry on all prompts once a round."""
    runs: Runs = {entry: [] for entry in entries}
    for _ in range(rounds):
        for entry, done in runs.items():
            done.append(bench.run(entry))
    return runs


def check_same(runs: Runs, is_exact: bool) -> int:
    """The number of rows whose tokens are not the same in all runs, of either rival in any batch.

    Raises:
        RuntimeError: there are some, though `is_exact`.
    """
    tokens = [
        [result.token_ids for result in run.results] for done in runs.values() for run in done
    ]
    num = sum(any(other != row[0] for other in row) for row in zip(*tokens, strict=True))
    if num and is_exact:
        raise RuntimeError(f"lock-step and engine give different tokens in {num} rows")
    return num


def compare(
    workload: Workload, pairs: dict[str, list[Entry]], runs: Runs, llada: Run
) -> dict[str, Any]:
    """The figures of each entry and the ratios of each pair, printed and as part of the report."""
    figures = {"llada, alone": summary([llada], workload)}
    figures |= {entry.title: summary(done, workload) for entry, done in runs.items()}
    print_table(figures)
    own = pairs["best"][1].title
    over_llada = figures[own]["tokens_per_s"] / llada.tokens_per_s
    print(f"{own}, over llada: {over_llada:.1f} x")
    ratios = {name: ratios_of(runs, pair, "wall_s") for name, pair in pairs.items()}
    cpu_ratios = {name: ratios_of(runs, pair, "cpu_s") for name, pair in pairs.items()}
    for name, pair in pairs.items():
        print_ratios(name, pair, ratios[name], cpu_ratios[name])
    return {
        "engine_over_llada": over_llada,
        "engine_over_lockstep": {name: statistics.median(of) for name, of in ratios.items()},
        "engine_over_lockstep_by_round": ratios,
        "engine_over_lockstep_in_cpu_s_by_round": cpu_ratios,
        "figures": figures,
    }


def summary(runs: list[Run], workload: Workload) -> dict[str, Any]:
    """The figures of the run with the median speed."""
    run = sorted(runs, key=lambda one: one.tokens_per_s)[len(runs) // 2]
    return run.figures() | {"pass_at_1": workload.pass_at_1(run.results)}


def ratios_of(runs: Runs, pair: list[Entry], seconds: str) -> list[float]:
    """The engine's tokens per second over lock-step's, round by round; `seconds`: of which kind, a
    field of Run."""
    speeds = [[run.num_tokens / getattr(run, seconds) for run in runs[entry]] for entry in pair]
    return [own / other for other, own in zip(*speeds, strict=True)]


def print_table(figures: dict[str, dict[str, Any]]) -> None:
    columns = {
        "tokens/s": "tokens_per_s",
        "wall s": "wall_s",
        "CPU s": "cpu_s",
        "TPF": "tokens_per_forward",
        "query tok/tok": "query_tokens_per_token",
        "outside fwd": "share_outside_forward",
        "for no row %": "percent_for_no_sequence",
        "pass@1": "pass_at_1",
    }
    print(f"\n{'all prompts':22}" + "".join(f"{title:>15}" for title in columns))
    for name, row in figures.items():
        print(f"{name:22}" + "".join(f"{row[key]:15.3f}" for key in columns.values()))


def print_ratios(
    name: str, pair: list[Entry], ratios: list[float], cpu_ratios: list[float]
) -> None:
    lockstep, engine = pair
    rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(
        f"{name + ':':7}{engine.title}, over {lockstep.title}: {statistics.median(ratios):.2f} x "
        f"(rounds: {rounds}); in CPU seconds {statistics.median(cpu_ratios):.2f} x"
    )
