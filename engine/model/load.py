"""Loads a checkpoint by its folder or hub id: fetches it, reads its config, fills a Transformer."""

import json
import logging
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from engine.errors import UserError
from engine.model.config import ModelConfig
from engine.model.families import FAMILIES, config_of
from engine.model.moe import keep_routers_float32
from engine.model.transformer import Transformer
from engine.model.weight_map import head_copy, weight_map
from engine.model.weights import check_files, load_weights
from engine.parallel import ALONE, TensorParallel

log = logging.getLogger("engine")
SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model"]
NEEDED_FILES = [*SMALL_FILES, "*.safetensors"]


def fetch_checkpoint(path: str, revision: str | None = None) -> Path:
    """The local folder of a checkpoint. `path` is that folder, or else a hub id, whose snapshot is
    downloaded, or taken from the hub's local cache.

    Raises:
        UserError: `path` is not a folder, and neither the hub nor its local cache has it.
    """
    return _fetch(path, revision, NEEDED_FILES, "")


def fetch_all_but_weights(path: str, revision: str | None = None) -> Path:
    """As `fetch_checkpoint`, but a folder that is sure to hold only config and tokenizer.

    Raises:
        UserError: as for fetch_checkpoint.
    """
    return _fetch(path, revision, SMALL_FILES, "")


def fetch_config(path: str, revision: str | None = None) -> Path:
    """As `fetch_checkpoint`, but a folder that is sure to hold only config.json.

    Raises:
        UserError: as for fetch_checkpoint.
    """
    return _fetch(path, revision, ["config.json"], "; model=NAME says whose settings it runs with")


def _fetch(path: str, revision: str | None, files: list[str], remedy: str) -> Path:
    if Path(path).is_dir():
        return Path(path)
    if path.startswith(("/", ".", "~")):
        raise UserError(f"model.path={path}: no such folder; give a folder, or a name on the hub")
    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=files))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"model.path={path} (revision {revision or 'main'}) is not a folder, and the hub did "
            f"not provide it: {reason}\nCheck the spelling; if this machine is offline, download "
            f"it on one with a network and give the folder{remedy}."
        ) from error


def read_config(folder: Path, max_positions: int | None = None) -> ModelConfig:
    """The ModelConfig of a checkpoint folder, with `max_positions` as its longest canvas if that is
    given.

    Raises:
        UserError: there is no config.json, its model_type is unknown, or its family refuses it; or
            config.json states fewer positions than `max_positions`.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(
            f"model.path={folder} holds no config.json: name the folder of a checkpoint"
        )
    try:
        raw = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}); copy the checkpoint again") from error
    try:
        config = config_of(raw, str(folder))
    except KeyError as error:
        raise UserError(f"{file}: {error.args[0]} is missing: not a complete checkpoint") from error
    except UserError as error:
        raise UserError(f"{file}: {str(error).removeprefix('config.json ')}") from error
    return config.with_positions(max_positions)


def warn_of_long_canvases(model: ModelConfig, max_positions: int | None) -> None:
    """Log a warning if `max_positions` is more than the model, as its family reads it, was trained
    for."""
    trained = model.max_positions
    if max_positions is not None and max_positions > trained:
        log.warning(
            "model.max_positions=%d: more than the %d positions that the model was trained for; "
            "answers on longer canvases may be worse",
            max_positions,
            trained,
        )


def check_weights(folder: Path) -> None:
    """Check that load_model will find the tensors it needs. Quick: reads only the files' headers.

    Raises:
        UserError: as for read_config and load_weights.
    """
    config = read_config(folder)
    names = FAMILIES[config.family].NAMES
    check_files(weight_map(config, names), folder, head_copy(config, names))


def load_model(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    parallel: TensorParallel = ALONE,
    max_positions: int | None = None,
) -> Transformer:
    """The Transformer of a checkpoint folder, on `device`, in `dtype`, ready for inference. In a
    tensor-parallel group: this rank's share of it. `max_positions`: as for read_config.

    Raises:
        UserError: as for read_config and load_weights.
    """
    config = read_config(folder, max_positions)
    with torch.device("meta"):
        model = Transformer(config, parallel)
    model = model.to(dtype)
    keep_routers_float32(model)
    model = model.to_empty(device=device)
    names = FAMILIES[config.family].NAMES
    load_weights(model, weight_map(config, names), folder, head_copy(config, names))
    return model.eval().requires_grad_(False)
