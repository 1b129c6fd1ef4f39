"""Checkpoint folder -> Transformer, and back: safetensors read tensor by tensor into place."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.model.moe import Router
from engine.model.transformer import Transformer


class Piece(NamedTuple):
    """One tensor of a checkpoint, and how many of our parameter's rows it fills.

    The rows of experts, stacked in one parameter [experts, rows, columns], are all the first
    expert's, then all the second's, and so on.
    """

    name: str
    rows: int


WeightMap = dict[str, tuple[Piece, ...]]


def load_weights(model: Transformer, pieces: WeightMap, folder: Path) -> None:
    """Fill `model`, in place, from every `*.safetensors` file of `folder`.

    Values are converted to the dtype and device that the parameters have. Host memory holds one
    tensor at a time.

    Raises:
        ValueError: no safetensors file, or tensors missing, surplus or misshapen; all are named.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(
            f"model.path={folder} holds no *.safetensors file: name the folder of a checkpoint, "
            "or download it again"
        )
    with ExitStack() as stack:
        opened = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
        where = {name: file for file in opened for name in file.keys()}  # noqa: SIM118
        wanted = {name: target for name, target, _ in _targets(model, pieces)}
        shapes = {name: tuple(where[name].get_slice(name).get_shape()) for name in where}
        _check_names(folder, shapes, {name: tuple(t.shape) for name, t in wanted.items()})
        with torch.no_grad():
            for name, target in wanted.items():
                target.copy_(where[name].get_tensor(name))


def save_weights(model: Transformer, pieces: WeightMap, file: Path, dtype: torch.dtype) -> None:
    """Write `model` under the checkpoint's own tensor names, as load_weights reads them.

    Routers stay in float32, as they are in use.
    """
    tensors = {
        name: rows.to(torch.float32 if is_router else dtype).contiguous()
        for name, rows, is_router in _targets(model, pieces)
    }
    save_file(tensors, file, metadata={"format": "pt"})


def _targets(model: Transformer, pieces: WeightMap) -> Iterator[tuple[str, Tensor, bool]]:
    """(checkpoint name, the rows of our parameter that it fills, is it a router's), for all."""
    parameters = dict(model.named_parameters())
    assert parameters.keys() == pieces.keys(), (
        f"the family's weight map and the transformer name different parameters: "
        f"{sorted(parameters.keys() ^ pieces.keys())}"
    )
    for ours, stacked in pieces.items():
        parameter = parameters[ours].data
        if parameter.ndim > 2:
            parameter = parameter.view(-1, parameter.shape[-1])
        rows = [piece.rows for piece in stacked]
        assert sum(rows) == parameter.shape[0], f"{ours}: {rows} do not fill {parameter.shape[0]}"
        is_router = isinstance(model.get_submodule(ours.rpartition(".")[0]), Router)
        for piece, target in zip(stacked, parameter.split(rows), strict=True):
            yield piece.name, target, is_router


def _check_names(
    folder: Path, found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]
) -> None:
    faults = [f"missing {name} {list(wanted[name])}" for name in wanted if name not in found]
    faults += [f"surplus {name} {list(found[name])}" for name in found if name not in wanted]
    faults += [
        f"misshapen {name} {list(found[name])}, not {list(wanted[name])}"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    if faults:
        shown = "\n  ".join(faults[:20]) + (f"\n  and {len(faults) - 20} more" * (len(faults) > 20))
        raise ValueError(
            f"model.path={folder}: config.json and the safetensors files disagree:\n  {shown}\n"
            "The files are incomplete or belong to another model: download the checkpoint again."
        )
