"""The steps of the benchmark for one model: warm-up, checks, measurements. Each step gives events,
which are what the report consists of (jobs/bench/gpu/record.py)."""

import gc
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from engine.memory import slot_bytes
from engine.model.plan.footprint import Setup, activation_bytes
from engine.model.transformer import Transformer
from engine.parallel import ALONE
from jobs.bench.gpu.ceilings import measure_rates
from jobs.bench.gpu.checks import (
    Found,
    engine_checks,
    float32_checks,
    kernel_checks,
    without_kernels,
)
from jobs.bench.gpu.clock import Deadline
from jobs.bench.gpu.measure import Case, engine_settings, measure, measure_prefill, prepared
from jobs.bench.gpu.models import MEASURED_BLOCKS, BenchModel, random_model
from jobs.bench.gpu.profile import count_touched, profile_block
from jobs.bench.gpu.record import Event, failure, left_out

GIB = 2**30
LEAST_S = 2.0
"""Seconds that must be left for a step to begin."""
NO_TIME = "no time left"
WARM_SETTINGS = {"iteration_tokens": 8192, "logits_bytes": 2**28}
"""Less than the engine's, since several processes warm up on one card at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything is measured."""

    cases: tuple[Case, ...]
    """In the order of their value: the last ones are left out if time is short."""
    num_check_rows: int = 32
    matrix_rows: tuple[int, ...] = (1, 33, 1024)
    """Rows with which kernels are compared with their references."""
    copied_bytes: int = 2**30
    matrix_size: int = 8192

    @property
    def batches(self) -> list[int]:
        return sorted({case.batch for case in self.cases})


def every_case(batches: tuple[int, ...], committed: tuple[int, ...]) -> tuple[Case, ...]:
    """The engine at 4 tokens per forward and its rivals, for the first two batches; these at the
    other speeds; the other batches."""
    own = [Case(batch=batch) for batch in batches]
    rivals = [Case(batch=b, variant=v) for v in ("plain", "any bits") for b in batches[:2]]
    speeds = [Case(batch=b, committed=c) for b in batches for c in committed if c != 4]
    num_first = 2 * (len(committed) - 1)
    rest = [Case(batch=b, variant="any bits") for b in batches[2:3]]
    rest += [Case(batch=b, variant="eager") for b in batches[:2]]
    return (*own[:2], *rivals, *speeds[:num_first], *own[2:], *speeds[num_first:], *rest)


QUICK = Sizes(cases=every_case((1, 32), (4,)), num_check_rows=9)
FULL = Sizes(cases=every_case((1, 32, 8, 128, 256), (2, 4, 8)))


def rates_of(device: torch.device, sizes: Sizes) -> Iterator[Event]:
    rates = measure_rates(device, sizes.copied_bytes, sizes.matrix_size)
    yield {"part": "rates", **asdict(rates)}


def check_kernels(model: BenchModel, sizes: Sizes, device: torch.device) -> Iterator[Event]:
    what = f"kernels of {model.title} against their references"
    refusal = without_kernels(model, device)
    if refusal is None:
        its = kernel_checks(model, device, sizes.matrix_rows)
        yield from _as_events(its)
    else:
        yield left_out(what, refusal)


def check_engine(model: BenchModel, sizes: Sizes, device: torch.device) -> Iterator[Event]:
    return _as_events(engine_checks(model, device, sizes.num_check_rows))


def check_float32(model: BenchModel, sizes: Sizes, device: torch.device) -> Iterator[Event]:
    return _as_events(float32_checks(model, device, sizes.num_check_rows))


def _as_events(its: Iterable[Found]) -> Iterator[Event]:
    for found in its:
        yield {"part": "checks", **found.as_dict()}


def warm_model(model: BenchModel, batches: list[int], device: torch.device) -> Iterator[Event]:
    """Run the model's widths once with these batches, so that Triton compiles the kernels into its
    cache, which all processes share."""
    few = model.with_layers(2)
    transformer = random_model(few, device)
    for batch in batches:
        for variant in ("engine", "any bits"):
            bench = prepared(
                transformer,
                replace(few, context=context_of_warm_up(few, batch)),
                Case(batch=batch, committed=model.block_length // 2, variant=variant),
                **WARM_SETTINGS,
            )
            measure(bench, Deadline(float("inf")))
            del bench
            free(device)
    yield from ()


def context_of_warm_up(model: BenchModel, batch: int) -> int:
    """Half of the context where refreshes fill whole forwards with that too, if it holds all
    blocks: K and V of 256 sequences are most of a process's memory, and no kernel depends on the
    context."""
    if batch * model.context <= 2 * WARM_SETTINGS["iteration_tokens"]:
        return model.context
    return min(model.context, max(model.context // 2, 2 * MEASURED_BLOCKS * model.block_length))


def measure_model(
    model: BenchModel, sizes: Sizes, device: torch.device, deadline: Deadline
) -> Iterator[Event]:
    """All cases in their order, each in its own try; what does not fit into the time or the memory
    left is left out."""
    if deadline.left_s < LEAST_S:
        yield left_out(model.title, NO_TIME)
        return
    transformer = random_model(model, device)
    for case in sizes.cases:
        what = f"{model.title}, {case.title}"
        if model.block_length % case.committed:
            yield left_out(what, f"blocks of {model.block_length}")
        elif deadline.left_s < LEAST_S:
            yield left_out(what, NO_TIME)
        elif (lack := _lack(transformer, model, case, device)) is not None:
            yield left_out(what, lack)
        else:
            yield from tried(what, partial(measured, transformer, model, case, deadline))
            free(device)


def tried(what: str, step: Callable[[], Iterator[Event]]) -> Iterator[Event]:
    """The events of a step and, if it fails, its error as one more."""
    try:
        yield from step()
    except Exception as error:  # noqa: BLE001 the report has it, and the exit code
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        yield failure(what, words, traceback.format_exc(limit=-4))


def measured(
    transformer: Transformer, model: BenchModel, case: Case, deadline: Deadline
) -> Iterator[Event]:
    """One case: its cycle and, at 4 tokens per forward, a profile."""
    bench = prepared(transformer, model, case)
    about = {"model": model.name, "title": model.title, **asdict(case)}
    one: dict[str, Any] = about | measure(bench, deadline)
    if one["tokens_per_s"] is None:
        yield left_out(f"{model.title}, {case.title}: tokens/s", NO_TIME)
    elif case.committed == 4:
        one["profile"] = profile_block(bench)
        if case.variant == "plain" and model.config.experts is not None:
            one["experts_touched"] = count_touched(bench)
        if "refresh" not in one:
            one["refresh"] = measure_prefill(bench, deadline)
    yield {"part": "measurements", **one}


def free(device: torch.device) -> None:
    """Give back the memory of what is no longer used."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _lack(
    transformer: Transformer, model: BenchModel, case: Case, device: torch.device
) -> str | None:
    """Why the case does not fit into the card's memory; None if it does."""
    if device.type != "cuda":
        return None
    config = engine_settings(model, case, device)
    assert config.cache_tokens is not None
    setup = Setup(model=model.config, dtype=model.dtype, engine=config, canvas_len=model.canvas_len)
    kv = config.cache_tokens * slot_bytes(transformer)
    rest = config.logits_bytes + activation_bytes(setup, ALONE)
    available = torch.cuda.mem_get_info(device)[0]
    if kv + rest <= available:
        return None
    return (
        f"K and V take {kv / GIB:.1f} GiB, logits and activations up to {rest / GIB:.1f}, "
        f"{available / GIB:.1f} are free"
    )
