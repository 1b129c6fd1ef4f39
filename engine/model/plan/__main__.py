"""Prints which layouts of GPUs can hold a model, and how many sequences fit beside it.

    python -m engine.model.plan model=llada2_flash gpus=8 gpu_memory_gb=80

A layout divides the GPUs into groups of equal size. Each group holds the model once (tensor
parallel), and the groups work side by side (data parallel). No weights are downloaded or loaded.

Exit code 0: at least one layout has room for a sequence; 1: none has; 2: wrong arguments.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

from engine.errors import UserError
from engine.legal import block_length_of
from engine.model.config import ModelConfig
from engine.model.plan.arguments import Arguments, make_setup, parse_arguments
from engine.model.plan.footprint import (
    Capacity,
    Footprint,
    PlannedRank,
    Setup,
    can_split,
    capacity_of,
    footprints,
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
    "weights      exact, on the GPU that holds the most",
    "K/V          exact, for one canvas on one GPU, in whole pages",
    "logits       upper bound, set by engine.logits_bytes",
    "activations  estimated, for a forward of engine.iteration_tokens with fused attention",
    "fraction     engine.memory_fraction, lowered if logits and activations need more",
    "not counted  memory of CUDA and NCCL; state kept by klass, credit and soft iteration",
)
Layouts = list[tuple[Footprint, Capacity]]


def main(argv: Sequence[str]) -> int:
    try:
        arguments = parse_arguments(argv)
        setup = make_setup(arguments)
    except UserError as error:
        print(f"engine.model.plan: {str(error).removeprefix('engine.')}", file=sys.stderr)
        return 2
    layouts = [
        (footprint, capacity_of(setup, footprint, arguments.gpu_bytes))
        for size in sizes_of(setup.model, arguments.gpus)
        for footprint in footprints(setup, size)
    ]
    print("\n".join([*heading(arguments, setup), "", *table(arguments, setup, layouts), ""]))
    if all(capacity.refusal for _, capacity in layouts):
        print(remedy(arguments, setup, [footprint for footprint, _ in layouts]))
        return 1
    print("\n".join(advice(arguments, setup, layouts)))
    return 0


def sizes_of(model: ModelConfig, num_gpus: int) -> list[int]:
    """The possible numbers of GPUs in one group."""
    return [n for n in range(1, num_gpus + 1) if num_gpus % n == 0 and can_split(model, n)]


def heading(arguments: Arguments, setup: Setup) -> list[str]:
    model = setup.model
    whole = planned_model(model, setup.dtype, PlannedRank(0, 1))
    num_parameters = sum(parameter.numel() for parameter in whole.parameters())
    name = PUBLISHED[arguments.model].hub_id if arguments.model in PUBLISHED else model.family
    size = f"{num_parameters / 1e9:.2f} billion"
    if num_parameters < 10**8:
        size = f"{num_parameters / 1e6:.2f} million"
    return [
        f"{arguments.model} ({name}): {size} parameters in {arguments.dtype}",
        f"GPUs: {arguments.gpus} of {arguments.gpu_memory_gb:g} GB "
        "(10^9 bytes; one sold as 80 GB has 85)",
        f"each sequence: a canvas of {setup.canvas_len:,} tokens, {setup.pages_of_sequence} pages",
    ]


def table(arguments: Arguments, setup: Setup, layouts: Layouts) -> list[str]:
    lines = [_line(cells) for cells in HEADER]
    for footprint, capacity in layouts:
        num_groups = arguments.gpus // footprint.num_ranks
        cells = [
            f"{num_groups} x {footprint.num_ranks}",
            readable(footprint.weights),
            readable(footprint.page * setup.pages_of_sequence),
            readable(footprint.logits),
            readable(footprint.activations),
        ]
        end = f"  refused: {capacity.refusal}"
        if capacity.refusal is None:
            cells += [f"{capacity.memory_fraction:.2f}", f"{capacity.num_sequences:,}"]
            cells += [f"{_sequences_in_all(arguments, footprint, capacity):,}"]
            end = ""
        lines.append(_line(cells) + end + ("  (whole experts)" if footprint.split_experts else ""))
    model, listed = setup.model, {footprint.num_ranks for footprint, _ in layouts}
    others = [
        n for n in range(1, arguments.gpus + 1) if arguments.gpus % n == 0 and n not in listed
    ]
    if others:
        lines.append(
            f"not listed: groups of {', '.join(map(str, others))}: {model.num_heads} query heads "
            f"and {model.num_kv_heads} K/V heads cannot be split evenly over them"
        )
    return lines


def advice(arguments: Arguments, setup: Setup, layouts: Layouts) -> list[str]:
    """The settings for two layouts: the smallest groups (the least traffic between GPUs), and the
    most sequences over all groups."""
    fitting = [(footprint, capacity) for footprint, capacity in layouts if capacity.refusal is None]
    block_length = block_length_of(setup.model, setup.engine)
    num_blocks = arguments.iteration_tokens // block_length
    most = max(fitting, key=lambda layout: _sequences_in_all(arguments, *layout))
    lines = [
        f"smallest groups  {_settings(*fitting[0])}",
        f"most sequences   {_settings(*most)}",
    ]
    if fitting[0] == most:
        del lines[1]
    if most[1].num_sequences > num_blocks:
        lines.append(
            f"A forward has room for iteration_tokens={arguments.iteration_tokens}: {num_blocks} "
            f"blocks of {block_length}. If more sequences are alive, they take turns."
        )
    return [*lines, "", *NOTES]


def remedy(arguments: Arguments, setup: Setup, refused: list[Footprint]) -> str:
    """Changes that would make room for a sequence, for when no layout has room for one."""
    needed_gb, best = min((least_gpu_gb(setup, one), i) for i, one in enumerate(refused))
    size = refused[best].num_ranks
    lines = [
        "No layout has room for a sequence. These would:",
        f"  GPUs of {needed_gb} GB, {_groups(size)}",
    ]
    more = next((n for n in _larger(setup.model, size) if _fits(arguments, setup, n)), None)
    if more is not None:
        lines.append(f"  GPUs of {arguments.gpu_memory_gb:g} GB, {_groups(more)}")
    small = replace(setup.engine, iteration_tokens=2048, logits_bytes=2**28)
    if _fits(arguments, replace(setup, engine=small), size):
        settings = f"iteration_tokens={small.iteration_tokens} logits_bytes={small.logits_bytes}"
        lines.append(f"  GPUs of {arguments.gpu_memory_gb:g} GB, {_groups(size)}, with {settings}")
    return "\n".join(lines)


def _groups(size: int) -> str:
    return "each alone" if size == 1 else f"in groups of {size}"


def _larger(model: ModelConfig, size: int) -> list[int]:
    return [n for n in range(size + 1, model.num_heads + 1) if can_split(model, n)]


def _fits(arguments: Arguments, setup: Setup, num_ranks: int) -> bool:
    return any(
        capacity_of(setup, footprint, arguments.gpu_bytes).refusal is None
        for footprint in footprints(setup, num_ranks)
    )


def _sequences_in_all(arguments: Arguments, footprint: Footprint, capacity: Capacity) -> int:
    return arguments.gpus // footprint.num_ranks * capacity.num_sequences


def _settings(footprint: Footprint, capacity: Capacity) -> str:
    settings = [
        "engine=gpu",
        f"engine.tensor_parallel={footprint.num_ranks}",
        *(["engine.expert_parallel=true"] if footprint.split_experts else []),
        f"engine.max_sequences={capacity.num_sequences}",
        f"engine.memory_fraction={capacity.memory_fraction:g}",
    ]
    return " ".join(settings)


def _line(cells: Sequence[str]) -> str:
    return "".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=False))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
