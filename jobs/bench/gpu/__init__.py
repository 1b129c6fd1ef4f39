"""How fast is the engine on a GPU, and how far is that from what the card allows?

`steps.py`: the order of everything, and what is left out when time or memory is short
`models.py`: the published shapes, with random weights
`checks.py`: the kernels against plain torch, graphs against none, a row alone and in batches
`ceilings.py`: the card's own rates
`floors.py`: what a forward must take at those rates
`measure.py`: iterations and tokens per second of the real engine
`profile.py`: kernels by time, the card's busy time, experts that are read
`derive.py`, `targets.py`: floors, shares and idle time of the measurements; the targets
`record.py`, `report.py`: the report, written again after every step
`clock.py`: the time that is left
"""

import os
from pathlib import Path
from typing import Any

import torch

from engine.errors import UserError
from jobs.bench.gpu.clock import Deadline
from jobs.bench.gpu.models import TITLES, bench_model
from jobs.bench.gpu.steps import FULL, QUICK, benchmark, new_record
from jobs.bench.provenance import provenance

QUICK_S, FULL_S = 95.0, 290.0
QUICK_MODELS = ("llada_moe", "llada2_mini", "llada_8b")


def run(
    *, quick: bool, models: list[str] | None, seconds: float | None, out: Path, workers: int | None
) -> dict[str, Any]:
    """Run the benchmark and return its report, whose `exit_code` is 1 if a check does not hold or
    something failed.

    Raises:
        UserError: there is no NVIDIA GPU.
    """
    if not torch.cuda.is_available():
        raise UserError(
            "python -m jobs.bench gpu needs an NVIDIA GPU, and torch finds none here: run it on a "
            "machine with one (jobs/bench/on_gpu.sh runs all that needs a GPU)"
        )
    limit_s = seconds or (QUICK_S if quick else FULL_S)
    device = torch.device("cuda")
    about = {"quick": quick, "seconds": limit_s, "num_cores": os.cpu_count(), **provenance("cuda")}
    about["card"] = about.pop("hardware")
    names = models or (list(QUICK_MODELS) if quick else list(TITLES))
    record = new_record(about, out)
    benchmark(
        [bench_model(name) for name in names],
        QUICK if quick else FULL,
        device,
        Deadline.after(limit_s),
        record,
    )
    return record.as_dict()
