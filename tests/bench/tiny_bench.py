"""Tiny models for the GPU benchmark, a report to fill, and its steps in this process."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.cache.block_causal import BlockCausalCache
from engine.cache.dual import DualCache
from engine.model.config import ModelConfig
from engine.model.families import llada2
from jobs.bench.gpu import steps
from jobs.bench.gpu.clock import Deadline
from jobs.bench.gpu.models import TITLES, BenchModel
from jobs.bench.gpu.record import Record
from jobs.bench.gpu.report import markdown
from jobs.bench.gpu.steps import (
    Sizes,
    check_engine,
    check_float32,
    every_case,
    measure_model,
    rates_of,
)
from tests.tiny import tiny_config, tiny_llada2_raw_config

CPU = torch.device("cpu")


SIZES = Sizes(
    cases=every_case((1, 3), (2, 4, 8)),
    num_check_rows=3,
    matrix_rows=(1,),
    copied_bytes=2**20,
    matrix_size=64,
)


def tiny(name: str, **changes: Any) -> BenchModel:
    """A bench model of a few thousand weights; `llada2_mini` is block-causal and has experts."""
    causal = name == "llada2_mini"
    config: ModelConfig = (
        llada2.read_config(tiny_llada2_raw_config(block_length=16)) if causal else tiny_config()
    )
    model = BenchModel(
        name=name,
        title=TITLES[name],
        config=config,
        cache_name="block_causal" if causal else "dual",
        cache=BlockCausalCache() if causal else DualCache(),
        block_length=16,
        dtype=torch.float32,
        context=128,
    )
    return replace(model, **changes)


def record(folder: Path | None = None, models: list[BenchModel] | None = None) -> Record:
    about = {
        "date": "2026-11-27",
        "card": "2 CPU cores",
        "quick": False,
        "seconds": 60.0,
        "versions": {"torch": torch.__version__},
        "git_revision": None,
    }
    return Record(about=about, models=models or [], render=markdown, folder=folder)


def here(
    models: list[BenchModel], sizes: Sizes, folder: Path, seconds: float = 600
) -> tuple[Record, Path]:
    """The steps of the benchmark in this process, in their order."""
    its, deadline = record(folder, models), Deadline.in_seconds(seconds)
    for model in models:
        for check in (check_engine, check_float32):
            its.take(steps.tried("checks", partial(check, model, sizes, CPU)))
    its.take(rates_of(CPU, sizes))
    for i, model in enumerate(models):
        its.take(measure_model(model, sizes, CPU, deadline.share(len(models) - i)))
    return its, folder


def soon(seconds: float = 600) -> Deadline:
    return Deadline.in_seconds(seconds)


def tables(text: str) -> dict[str, list[dict[str, str]]]:
    """The first table of each section, as a dict of its head's cells for each row."""
    found: dict[str, list[dict[str, str]]] = {}
    for section in text.split("\n## ")[1:]:
        title, _, rest = section.partition("\n")
        lines = [line[2:-2].split(" | ") for line in rest.splitlines() if line[:1] == "|"]
        if lines:
            end = next((i for i, line in enumerate(lines[2:], 2) if "---" in line[0]), len(lines))
            found[title] = [dict(zip(lines[0], line, strict=True)) for line in lines[2:end]]
    return found
