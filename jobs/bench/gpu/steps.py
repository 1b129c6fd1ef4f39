"""The order of the benchmark: kernels compiled, checks, the card's rates, then model by model."""

import datetime
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from engine.memory import slot_bytes
from engine.model.plan.footprint import Setup, activation_bytes
from engine.model.transformer import Transformer
from engine.parallel import ALONE
from jobs.bench.gpu.ceilings import measure_rates
from jobs.bench.gpu.checks import checks
from jobs.bench.gpu.clock import BEGIN, Deadline
from jobs.bench.gpu.derive import derive
from jobs.bench.gpu.measure import Case, engine_settings, measure, prepared
from jobs.bench.gpu.models import BenchModel, random_model
from jobs.bench.gpu.profile import count_touched, profile_block
from jobs.bench.gpu.record import Record
from jobs.bench.gpu.report import markdown
from jobs.bench.gpu.targets import judged

GIB = 2**30
LEAST_S = {"check": 4.0, "case": 2.0}
"""Seconds that must be left for a step to begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything is measured."""

    cases: tuple[Case, ...]
    """In the order of their value: the last ones are left out if time is short."""
    num_check_rows: int = 32
    copied_bytes: int = 2**30
    matrix_size: int = 8192


def every_case(batches: tuple[int, ...], committed: tuple[int, ...]) -> tuple[Case, ...]:
    """The engine at 4 tokens per forward for every batch, its rivals, then the other speeds."""
    own = [Case(batch=batch) for batch in batches]
    rivals = [Case(batch=b, variant=v) for v in ("plain", "any bits") for b in batches[:2]]
    speeds = [Case(batch=b, committed=c) for b in batches for c in committed if c != 4]
    rest = [Case(batch=b, variant="any bits") for b in batches[2:3]]
    rest += [Case(batch=b, variant="eager") for b in batches[:2]]
    return (*own[:2], *rivals, *own[2:], *speeds, *rest)


QUICK = Sizes(cases=every_case((1, 32), (4,)), num_check_rows=9)
FULL = Sizes(cases=every_case((1, 32, 8, 128, 256), (2, 4, 8)))


def benchmark(
    models: list[BenchModel],
    sizes: Sizes,
    device: torch.device,
    deadline: Deadline,
    record: Record,
) -> Record:
    """Fill the record. Every step is in its own try, and the record is written after each."""
    gc.collect()
    gc.freeze()  # so that collecting what a step left does not go through all libraries
    try:
        Benchmark(models, sizes, device, deadline, record).run()
    finally:
        gc.unfreeze()
    return record


def new_record(about: dict[str, Any], folder: Path | None) -> Record:
    date = datetime.date.today().isoformat()
    return Record(about={"date": date, **about}, render=markdown, folder=folder)


class Benchmark:
    """One run of the benchmark on one device."""

    def __init__(
        self,
        models: list[BenchModel],
        sizes: Sizes,
        device: torch.device,
        deadline: Deadline,
        record: Record,
    ) -> None:
        self._models, self._sizes, self._device = models, sizes, device
        self._deadline, self._record = deadline, record

    def run(self) -> None:
        for model in self._models:
            self._record.models[model.name] = _about(model)
        with self._step("the card's rates"):
            sizes = self._sizes
            self._record.rates = measure_rates(self._device, sizes.copied_bytes, sizes.matrix_size)
        for model in self._models:
            self._check(model)
        for i, model in enumerate(self._models):
            own = self._deadline.share(len(self._models) - i)
            with self._step(model.title):
                self._measure(model, own)

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        """Do one step, free what it left, and bring the report up to date."""
        try:
            with self._record.step(what):
                yield
        finally:
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            self._bring_up_to_date()

    def _bring_up_to_date(self) -> None:
        record = self._record
        derive(self._models, record.measurements, record.rates)
        record.targets = judged(record.measurements, str(record.about["card"]))
        record.took_s = time.perf_counter() - BEGIN
        record.save()

    def _check(self, model: BenchModel) -> None:
        what = f"checks of {model.title}"
        if self._deadline.left_s < LEAST_S["check"]:
            self._record.leave_out(what, "no time left")
            return
        with self._step(what):
            for found in checks(model, self._device, self._sizes.num_check_rows):
                self._record.checks.append(found.as_dict())
                print(f"{found.check}: {found.found}", flush=True)

    def _measure(self, model: BenchModel, deadline: Deadline) -> None:
        if deadline.left_s < LEAST_S["case"]:
            self._record.leave_out(model.title, "no time left")
            return
        transformer = random_model(model, self._device)
        for case in self._sizes.cases:
            what = f"{model.title}, {case.title}"
            if model.block_length % case.committed or case.committed > model.block_length:
                self._record.leave_out(what, f"blocks of {model.block_length}")
            elif deadline.left_s < LEAST_S["case"]:
                self._record.leave_out(what, "no time left")
            elif (lack := self._lack(transformer, model, case)) is not None:
                self._record.leave_out(what, lack)
            else:
                with self._step(what):
                    self._case(transformer, model, case, deadline)

    def _case(
        self, transformer: Transformer, model: BenchModel, case: Case, deadline: Deadline
    ) -> None:
        bench = prepared(transformer, model, case)
        about = {"model": model.name, "title": model.title, **asdict(case)}
        one = about | measure(bench, deadline)
        self._record.measurements.append(one)
        if one["tokens_per_s"] is None:
            self._record.leave_out(f"{model.title}, {case.title}: tokens/s", "no time left")
        elif case.committed == 4:
            one["profile"] = profile_block(bench)
            if case.variant == "plain" and model.config.experts is not None:
                one["experts_touched"] = count_touched(bench)
        block = one.get("block") or {}
        said = f"block {block.get('ms', 0):.2f} ms, {one['tokens_per_s'] or 0:.0f} tokens/s"
        print(f"{model.title}, {case.title}: {said}", flush=True)

    def _lack(self, transformer: Transformer, model: BenchModel, case: Case) -> str | None:
        """Why the case does not fit into the card's memory; None if it does."""
        if self._device.type != "cuda":
            return None
        config = engine_settings(model, case, self._device)
        assert config.cache_tokens is not None
        setup = Setup(
            model=model.config, dtype=model.dtype, engine=config, canvas_len=model.canvas_len
        )
        kv = config.cache_tokens * slot_bytes(transformer)
        rest = config.logits_bytes + activation_bytes(setup, ALONE)
        free = torch.cuda.mem_get_info(self._device)[0]
        if kv + rest <= free:
            return None
        return (
            f"K and V take {kv / GIB:.1f} GiB, logits and activations up to {rest / GIB:.1f}, "
            f"{free / GIB:.1f} are free"
        )


def _about(model: BenchModel) -> dict[str, Any]:
    return {
        "title": model.title,
        "num_prompt_tokens": model.num_prompt_tokens,
        "canvas_len": model.canvas_len,
        "block_length": model.block_length,
        "cache": model.cache_name,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
