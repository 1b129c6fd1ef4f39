"""Reads a checkpoint's safetensors files into a Transformer, tensor by tensor, and writes them."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import UserError
from engine.model.moe import Router
from engine.model.transformer import Transformer
from engine.model.weight_map import Piece, WeightMap, tensor_shapes

WINDOW_BYTES = 2**26
"""A file is opened again after this many bytes were read from it: safetensors maps it into memory,
and the pages that were read stay resident as long as the mapping lives."""
NO_COPIES: Mapping[str, str] = {}
SHOWN_FAULTS = 20
"""Longest list of faults in one error message; the others are only counted."""


class Target(NamedTuple):
    """This rank's share of one piece, and the rows of a parameter that it fills."""

    piece: Piece
    share: tuple[slice, ...]
    """Cuts the share out of the checkpoint's tensor."""
    rows: Tensor
    """A view of the parameter."""
    is_router: bool


def load_weights(
    model: Transformer, pieces: WeightMap, folder: Path, copies: Mapping[str, str] = NO_COPIES
) -> None:
    """Fill the parameters of `model`, in place, from all `*.safetensors` files of `folder`. Tensors
    of `copies` (name -> parameter) may be there too, and must then equal the parameter.

    Each rank of a tensor-parallel group reads only its share. Values are converted to the dtype and
    device of the parameters. Apart from the model, host memory holds one tensor at a time and about
    WINDOW_BYTES of the mapped file.

    Raises:
        UserError: there is no safetensors file, one cannot be read, or tensors are missing,
            surplus, misshapen or in two files. The message names them, up to SHOWN_FAULTS. Or a
            copy has other values.
    """
    shapes = check_files(pieces, folder, copies)
    targets: dict[str, list[Target]] = defaultdict(list)
    for target in _targets(model, pieces):
        targets[target.piece.name].append(target)
    with torch.no_grad():
        for file, names in shapes.items():
            _read_file(file, [targets[name] for name in names if name in targets])
        for file, names in shapes.items():
            for name in copies.keys() & names.keys():
                _check_copy(file, name, model.get_parameter(copies[name]))


def check_files(
    pieces: WeightMap, folder: Path, copies: Mapping[str, str] = NO_COPIES
) -> dict[Path, dict[str, tuple[int, ...]]]:
    """Check the tensors of all `*.safetensors` files of `folder` against `pieces` and `copies`;
    returns each file's tensor shapes, in the order in which the tensors lie in the file. Reads only
    the headers.

    Raises:
        UserError: as for load_weights.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            f"model.path={folder} holds no *.safetensors file: name the folder of a checkpoint, "
            "or download it again"
        )
    shapes = {file: _shapes_in(file) for file in files}
    wanted = tensor_shapes(pieces)
    stored = {name for names in shapes.values() for name in names}
    for name in copies.keys() & stored:
        wanted[name] = pieces[copies[name]][0].shape
    _check_names(folder, shapes, wanted)
    return shapes


def save_weights(model: Transformer, pieces: WeightMap, file: Path, dtype: torch.dtype) -> None:
    """Write `model` to `file` under the checkpoint's tensor names, as load_weights reads them. The
    model must be whole, not a rank's share. Routers are written in float32, as they are run."""
    assert model.parallel.size == 1, "one rank's share of a model is not a checkpoint"
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for piece, _, rows, is_router in _targets(model, pieces):
        parts[piece.name].append(rows.to(torch.float32 if is_router else dtype))
    tensors = {name: torch.cat(its).contiguous() for name, its in parts.items()}
    save_file(tensors, file, metadata={"format": "pt"})


def _targets(model: Transformer, pieces: WeightMap) -> Iterator[Target]:
    """The targets of all pieces of which this rank has a share, in the order of `pieces`."""
    parameters = dict(model.named_parameters())
    assert parameters.keys() == pieces.keys(), (
        f"the family's weight map and the transformer name different parameters: "
        f"{sorted(parameters.keys() ^ pieces.keys())}"
    )
    for ours, stacked in pieces.items():
        parameter = parameters[ours].data
        if parameter.ndim > 2:
            parameter = parameter.view(-1, parameter.shape[-1])
        shares = [piece.share(model.config, model.parallel) for piece in stacked]
        own = [(piece, share) for piece, share in zip(stacked, shares, strict=True) if share]
        rows = [share[0].stop - share[0].start for _, share in own]
        assert sum(rows) == parameter.shape[0], f"{ours}: {rows} do not fill {parameter.shape[0]}"
        is_router = isinstance(model.get_submodule(ours.rpartition(".")[0]), Router)
        for (piece, share), target in zip(own, parameter.split(rows), strict=True):
            yield Target(piece, share, target, is_router)


def _read_file(file: Path, wanted: list[list[Target]]) -> None:
    """Read tensors from `file`: `wanted` has each one's targets, in the order of the file."""
    opened, num_bytes = safe_open(file, framework="pt"), 0
    for targets in wanted:
        if num_bytes > WINDOW_BYTES:
            opened, num_bytes = safe_open(file, framework="pt"), 0
        for target in targets:
            num_bytes += _read(opened, target)


def _read(opened: Any, target: Target) -> int:
    """Copy the share into the parameter; returns the bytes read."""
    tensor = opened.get_slice(target.piece.name)[target.share]
    target.rows.copy_(tensor)
    return int(tensor.nbytes)


def _check_copy(file: Path, name: str, parameter: Tensor) -> None:
    """
    Raises:
        UserError: the tensor has other values than the parameter.
    """
    num_rows = max(1, WINDOW_BYTES // parameter[:1].nbytes)
    for first in range(0, parameter.shape[0], num_rows):
        opened: Any = safe_open(file, framework="pt")
        rows = parameter[first : first + num_rows]
        if not torch.equal(opened.get_slice(name)[first : first + num_rows].to(rows), rows):
            raise UserError(
                f"{file}: {name} differs from the embedding, though by config.json the head is "
                "tied to it: if this tensor is the head, say so in a copy of the checkpoint's "
                "config.json (tie_word_embeddings=false, or LLaDA's weight_tying=false); if the "
                "embedding is, delete the tensor"
            )


def _shapes_in(file: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(file, framework="pt") as opened:
            names = opened.offset_keys()
            return {name: tuple(opened.get_slice(name).get_shape()) for name in names}
    except SafetensorError as error:
        raise UserError(
            f"{file}: cannot be read ({error}): it is truncated or not a safetensors file; "
            "download the checkpoint again"
        ) from error


def _check_names(
    folder: Path,
    shapes: dict[Path, dict[str, tuple[int, ...]]],
    wanted: dict[str, tuple[int, ...]],
) -> None:
    found = {name: shape for of_file in shapes.values() for name, shape in of_file.items()}
    faults = [f"missing {name} {list(wanted[name])}" for name in wanted if name not in found]
    faults += [f"surplus {name} {list(found[name])}" for name in found if name not in wanted]
    faults += [
        f"misshapen {name} {list(found[name])}, not {list(wanted[name])}"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    times = Counter(name for of_file in shapes.values() for name in of_file)
    faults += [f"in {count} files {name}" for name, count in times.items() if count > 1]
    if faults:
        more = len(faults) - SHOWN_FAULTS
        shown = "\n  ".join(faults[:SHOWN_FAULTS]) + (f"\n  and {more} more" * (more > 0))
        raise UserError(
            f"model.path={folder}: config.json and the safetensors files disagree:\n  {shown}\n"
            "The files are incomplete or belong to another model: download the checkpoint again."
        )
