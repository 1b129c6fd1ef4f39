"""Measures the real engine: iterations of each kind, generated tokens per second, memory.

All sequences are alike and stay together. Each commits the same number of tokens in every forward,
so that a count of forwards is a count of tokens:

    | one or two blocks: warm-up | one cycle: measured                    | next block   |
    | refresh, block, block ...  | rest of a block, and the next block's  | block, block |
    | kernels are compiled and   | first forward (a refresh or, under     | profiled     |
    | graphs captured            | block-causal attention, a commit pass) |              |
"""

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from engine.config import EngineConfig
from engine.decoding.fixed import Fixed
from engine.engine import DiffusionEngine
from engine.graphs import MOST_QUERY_TOKENS, SIGHTINGS
from engine.llm_arguments import engine_config
from engine.model.transformer import Transformer
from engine.request import Request
from jobs.bench.gpu.clock import Deadline, wait_for
from jobs.bench.gpu.models import BenchModel

VARIANTS: dict[str, dict[str, Any]] = {
    "engine": {},
    "plain": {"kernels": "torch", "graphs": False},
    "any bits": {"batch_invariant": False},
    "eager": {"graphs": False},
}
"""What is compared, and the fields of EngineConfig in which it differs from the defaults."""
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One measurement of a model."""

    batch: int
    """Sequences at once."""
    committed: int = 4
    """Tokens that each sequence commits in every forward."""
    variant: str = "engine"

    @property
    def title(self) -> str:
        return f"{self.variant}, B={self.batch}, {self.committed} tokens per forward"


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """One call of run_iteration."""

    ms: float
    forward_ms: float
    """In the model, on the device's own clock; of a graph, in all of its work."""
    num_forwards: dict[str, int]
    """By kind of span, counted once per sequence."""
    num_query_tokens: int

    @property
    def kind(self) -> str:
        """The kind of its spans, or `mixed`."""
        return next(iter(self.num_forwards)) if len(self.num_forwards) == 1 else "mixed"

    @property
    def num_sequences(self) -> int:
        return sum(self.num_forwards.values())


@dataclass(slots=True, kw_only=True)
class Bench:
    """An engine with a batch of sequences that are alike, and what its iterations took."""

    model: BenchModel
    case: Case
    engine: DiffusionEngine
    iterations: list[Iteration] = field(default_factory=list)

    @property
    def is_small(self) -> bool:
        """Whether a block iteration is a graph, if there are graphs."""
        num_tokens = self.case.batch * self.model.block_length
        return num_tokens <= MOST_QUERY_TOKENS and self.engine.config.graphs

    @property
    def num_warm_blocks(self) -> int:
        """Blocks until every shape of a forward has been compiled and, if it is small, captured."""
        return SIGHTINGS if self.is_small else 1

    @property
    def num_tokens(self) -> int:
        """Tokens committed so far: every forward of the default cache policies commits some."""
        return self.case.committed * sum(self.engine.stats.num_forwards.values())

    def iterate(self) -> Iteration:
        stats = self.engine.stats
        forwards, tokens = dict(stats.num_forwards), dict(stats.num_query_tokens)
        forward_s = stats.forward_s
        start = time.perf_counter()
        results = self.engine.run_iteration()
        ms = 1e3 * (time.perf_counter() - start)
        assert not results, f"a sequence ended while it was measured: {results[0].error}"
        iteration = Iteration(
            ms=ms,
            forward_ms=1e3 * (stats.forward_s - forward_s),
            num_forwards=_difference(stats.num_forwards, forwards),
            num_query_tokens=sum(_difference(stats.num_query_tokens, tokens).values()),
        )
        self.iterations.append(iteration)
        return iteration

    def iterate_until(self, num_tokens: int, deadline: Deadline) -> bool:
        """Run until so many tokens have been committed; False if the time is over before."""
        while self.num_tokens < num_tokens:
            if deadline.is_over:
                return False
            self.iterate()
        return True


def engine_settings(
    model: BenchModel, case: Case, device: torch.device, **settings: Any
) -> EngineConfig:
    """conf/engine's settings for the device, with room for exactly the case's canvases; `settings`
    are other ones. Blocks are opened freely, so that every forward commits the same number."""
    base = {
        "block_length": model.block_length,
        "stop_at_eos": False,
        "max_sequences": case.batch,
        "opening": "free",
    }
    own = VARIANTS[case.variant] | settings
    config = engine_config(device, base, None, own)
    num_pages = case.batch * config.pages_for(model.canvas_len)
    return engine_config(device, base, None, own | {"cache_tokens": num_pages * config.page_size})


def prepared(transformer: Transformer, model: BenchModel, case: Case, **settings: Any) -> Bench:
    """An engine with the case's requests: random prompts, no iteration yet. `settings`: fields of
    EngineConfig that differ from conf/engine."""
    assert model.block_length % case.committed == 0, "a block takes equal forwards"
    device = transformer.embed.weight.device
    engine = DiffusionEngine(
        transformer,
        config=engine_settings(model, case, device, **settings),
        decoding=Fixed(iterations_per_block=model.block_length // case.committed),
        cache=model.cache,
    )
    for request in requests(model, case.batch):
        engine.add(request)
    return Bench(model=model, case=case, engine=engine)


def requests(model: BenchModel, count: int, num_new_tokens: int | None = None) -> list[Request]:
    """The same requests in every call: random prompts, greedy."""
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(
        0, model.config.vocab_size - 1, (count, model.num_prompt_tokens), generator=generator
    )
    words += words >= model.config.mask_token_id  # every id but the mask's
    return [
        Request(
            request_id=i,
            prompt_ids=prompt,
            max_new_tokens=num_new_tokens or model.num_new_tokens,
            seed=i,
        )
        for i, prompt in enumerate(words.tolist())
    ]


def measure(bench: Bench, deadline: Deadline) -> dict[str, Any]:
    """Run the warm-up and one cycle of every sequence. If the time is over before, the figures of
    what was not reached are None."""
    model, case, device = bench.model, bench.case, bench.engine.runner.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    first = case.batch * (bench.num_warm_blocks * model.block_length + case.committed)
    last = first + case.batch * model.block_length
    figures: dict[str, Any] = {"tokens_per_s": None, "padding": None}
    if bench.iterate_until(first, deadline):
        wait_for(device)
        num_warm, num_tokens = len(bench.iterations), bench.num_tokens
        num_padding = bench.engine.stats.num_padding_tokens
        start = time.perf_counter()
        if bench.iterate_until(last, deadline):
            wait_for(device)
            wall_s = time.perf_counter() - start
            figures["tokens_per_s"] = (bench.num_tokens - num_tokens) / wall_s
        measured = bench.iterations[num_warm:]
        figures |= of_kinds(measured)
        if bench.is_small and bench.engine.forwards.graphs and "block" in figures:
            figures["block"]["idle_ms"] = idle_of_graphs_ms(measured)
        num_padding = bench.engine.stats.num_padding_tokens - num_padding
        num_query_tokens = sum(iteration.num_query_tokens for iteration in measured)
        figures["padding"] = num_padding / (num_padding + num_query_tokens)
    for kind, later in (("block", 0), ("refresh", 1), ("commit", 1)):
        if kind in figures:
            index = bench.num_warm_blocks + later
            figures[kind]["context"] = model.context_of_block(index)
    figures["num_failed_forwards"] = bench.engine.stats.num_failed_forwards
    if device.type == "cuda":
        figures["peak_gib"] = torch.cuda.max_memory_allocated(device) / GIB
    return figures


def measure_prefill(bench: Bench, deadline: Deadline) -> dict[str, Any] | None:
    """The refresh iterations of a block-causal model, which are the first forwards of its prompts:
    all sequences are started anew, once more than it takes to capture the forward as a graph. None
    if the time is over before."""
    for _ in range(SIGHTINGS):
        first, num_before = bench.num_tokens, len(bench.iterations)
        bench.engine.abort()
        for request in requests(bench.model, bench.case.batch):
            bench.engine.add(request)
        if not bench.iterate_until(first + bench.case.batch * bench.case.committed, deadline):
            return None
    refresh = of_kinds(bench.iterations[num_before:]).get("refresh")
    return refresh and refresh | {"context": bench.model.context_of_block(0)}


def of_kinds(iterations: list[Iteration]) -> dict[str, Any]:
    """Median milliseconds of the iterations of each kind, their sequences and query tokens; of
    block iterations only those with the most sequences."""
    figures: dict[str, Any] = {"num_mixed": sum(i.kind == "mixed" for i in iterations)}
    for kind in ("block", "refresh", "commit"):
        its = [iteration for iteration in iterations if iteration.kind == kind]
        most = max((iteration.num_sequences for iteration in its), default=0)
        its = [iteration for iteration in its if iteration.num_sequences == most]
        if its:
            figures[kind] = {
                "ms": statistics.median(iteration.ms for iteration in its),
                "num_iterations": len(its),
                "num_sequences": most,
                "num_query_tokens": statistics.median(i.num_query_tokens for i in its),
            }
    return figures


def idle_of_graphs_ms(iterations: list[Iteration]) -> float:
    """Median time of a block iteration in which the device had nothing to do: what is beyond the
    replay of its graph, as far as it was replayed in the iterations with the most sequences."""
    its = [one for one in iterations if one.kind == "block"]
    most = max(one.num_sequences for one in its)
    return statistics.median(one.ms - one.forward_ms for one in its if one.num_sequences == most)


def _difference(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    counts = {kind: count - before.get(kind, 0) for kind, count in after.items()}
    return {kind: count for kind, count in counts.items() if count}
