"""`python -m engine.model.plan model=llada2_flash gpus=8 gpu_memory_gb=80`: which layout holds a
model, and how many sequences beside it?

A layout cuts the GPUs into groups (data parallel), each of which holds the model once (tensor
parallel). Nothing is loaded. Exit code 0: at least one layout holds a sequence; 1: none does; 2:
wrong arguments.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

from engine.legal import block_length_of
from engine.model.config import ModelConfig
from engine.model.plan.arguments import Asked, asked_of, setup_of
from engine.model.plan.footprint import (
    Footprint,
    Grant,
    PlannedRank,
    Setup,
    can_split,
    footprints,
    grant,
    least_gpu_gb,
    planned_model,
    readable,
)
from engine.model.plan.published import PUBLISHED

HEADER = (
    ("groups", "weights", "K/V of a", "", "activa-", "memory_", "sequences", "sequences"),
    ("x GPUs", "per GPU", "sequence", "logits", "tions", "fraction", "per group", "in all"),
)
WIDTHS = (8, 11, 10, 10, 10, 10, 11, 11)
NOTES = (
    "weights      exact, of the GPU that has most",
    "K/V          exact, of one canvas on one GPU, in whole pages",
    "logits       at most, as engine.logits_bytes bounds them",
    "activations  estimated, for a forward of engine.iteration_tokens; attention taken for fused",
    "fraction     engine.memory_fraction, lowered where logits and activations need more",
    "not counted  CUDA's and NCCL's own memory; what klass, credit and soft iteration keep",
)
Layouts = list[tuple[Footprint, Grant]]


def main(arguments: Sequence[str]) -> int:
    try:
        asked = asked_of(arguments)
        setup = setup_of(asked)
    except ValueError as error:
        print(f"engine.model.plan: {str(error).removeprefix('engine.')}", file=sys.stderr)
        return 2
    layouts = [
        (taken, grant(setup, taken, asked.gpu_bytes))
        for size in sizes_of(setup.model, asked.gpus)
        for taken in footprints(setup, size)
    ]
    print("\n".join([*heading(asked, setup), "", *table(asked, setup, layouts), ""]))
    if all(given.refusal for _, given in layouts):
        print(remedy(asked, setup, [taken for taken, _ in layouts]))
        return 1
    print("\n".join(advice(asked, setup, layouts)))
    return 0


def sizes_of(model: ModelConfig, num_gpus: int) -> list[int]:
    """GPUs that one group may have."""
    return [n for n in range(1, num_gpus + 1) if num_gpus % n == 0 and can_split(model, n)]


def heading(asked: Asked, setup: Setup) -> list[str]:
    model = setup.model
    whole = planned_model(model, setup.dtype, PlannedRank(0, 1))
    num_parameters = sum(parameter.numel() for parameter in whole.parameters())
    name = PUBLISHED[asked.model].hub_id if asked.model in PUBLISHED else model.family
    size = f"{num_parameters / 1e9:.2f} billion"
    if num_parameters < 10**8:
        size = f"{num_parameters / 1e6:.2f} million"
    return [
        f"{asked.model} ({name}): {size} parameters in {asked.dtype}",
        f"GPUs: {asked.gpus} of {asked.gpu_memory_gb:g} GB (10^9 bytes; one sold as 80 GB has 85)",
        f"each sequence: a canvas of {setup.canvas_len:,} tokens, {setup.pages_of_sequence} pages",
    ]


def table(asked: Asked, setup: Setup, layouts: Layouts) -> list[str]:
    lines = [_line(cells) for cells in HEADER]
    for taken, given in layouts:
        num_groups = asked.gpus // taken.num_ranks
        cells = [
            f"{num_groups} x {taken.num_ranks}",
            readable(taken.weights),
            readable(taken.page * setup.pages_of_sequence),
            readable(taken.logits),
            readable(taken.activations),
        ]
        end = f"  refused: {given.refusal}"
        if given.refusal is None:
            cells += [f"{given.memory_fraction:.2f}", f"{given.num_sequences:,}"]
            cells += [f"{_sequences_in_all(asked, taken, given):,}"]
            end = ""
        lines.append(_line(cells) + end + ("  (whole experts)" if taken.split_experts else ""))
    model, listed = setup.model, {taken.num_ranks for taken, _ in layouts}
    others = [n for n in range(1, asked.gpus + 1) if asked.gpus % n == 0 and n not in listed]
    if others:
        lines.append(
            f"not listed: groups of {', '.join(map(str, others))}, over which {model.num_heads} "
            f"heads with {model.num_kv_heads} of K and V cannot be spread evenly"
        )
    return lines


def advice(asked: Asked, setup: Setup, layouts: Layouts) -> list[str]:
    """The settings of two layouts: with the least traffic between GPUs, and with most sequences."""
    fitting = [(taken, given) for taken, given in layouts if given.refusal is None]
    block_length = block_length_of(setup.model, setup.engine)
    num_blocks = asked.iteration_tokens // block_length
    most = max(fitting, key=lambda layout: _sequences_in_all(asked, *layout))
    lines = [
        f"smallest groups  {_settings(*fitting[0])}",
        f"most sequences   {_settings(*most)}",
    ]
    if fitting[0] == most:
        del lines[1]
    if most[1].num_sequences > num_blocks:
        lines.append(
            f"A forward takes iteration_tokens={asked.iteration_tokens}: {num_blocks} blocks of "
            f"{block_length}. Where more sequences live, they take turns."
        )
    return [*lines, "", *NOTES]


def remedy(asked: Asked, setup: Setup, refused: list[Footprint]) -> str:
    """What would hold a sequence where no layout does."""
    needed_gb, best = min((least_gpu_gb(setup, taken), i) for i, taken in enumerate(refused))
    size = refused[best].num_ranks
    lines = [
        "No layout holds a sequence. What would:",
        f"  GPUs of {needed_gb} GB, {_groups(size)}",
    ]
    more = next((n for n in _larger(setup.model, size) if _fits(asked, setup, n)), None)
    if more is not None:
        lines.append(f"  GPUs of {asked.gpu_memory_gb:g} GB, {_groups(more)}")
    small = replace(setup.engine, iteration_tokens=2048, logits_bytes=2**28)
    if _fits(asked, replace(setup, engine=small), size):
        settings = f"iteration_tokens={small.iteration_tokens} logits_bytes={small.logits_bytes}"
        lines.append(f"  GPUs of {asked.gpu_memory_gb:g} GB, {_groups(size)}, with {settings}")
    return "\n".join(lines)


def _groups(size: int) -> str:
    return "each alone" if size == 1 else f"in groups of {size}"


def _larger(model: ModelConfig, size: int) -> list[int]:
    return [n for n in range(size + 1, model.num_heads + 1) if can_split(model, n)]


def _fits(asked: Asked, setup: Setup, num_ranks: int) -> bool:
    grants = (grant(setup, taken, asked.gpu_bytes) for taken in footprints(setup, num_ranks))
    return any(given.refusal is None for given in grants)


def _sequences_in_all(asked: Asked, taken: Footprint, given: Grant) -> int:
    return asked.gpus // taken.num_ranks * given.num_sequences


def _settings(taken: Footprint, given: Grant) -> str:
    settings = [
        "engine=gpu",
        f"engine.tensor_parallel={taken.num_ranks}",
        *(["engine.expert_parallel=true"] if taken.split_experts else []),
        f"engine.max_sequences={given.num_sequences}",
        f"engine.memory_fraction={given.memory_fraction:g}",
    ]
    return " ".join(settings)


def _line(cells: Sequence[str]) -> str:
    return "".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=False))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
