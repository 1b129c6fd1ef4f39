"""From the name of a checkpoint, a folder or a hub id, to a Transformer ready to run."""

import json
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from engine.model.config import ModelConfig
from engine.model.families import FAMILIES, config_of
from engine.model.moe import keep_routers_wide
from engine.model.transformer import Transformer
from engine.model.weight_map import weight_map
from engine.model.weights import check_files, load_weights
from engine.parallel import ALONE, TensorParallel

NEEDED_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


def fetch_checkpoint(path: str, revision: str | None = None) -> Path:
    """The local folder of a checkpoint: `path` itself if a folder, else the hub's snapshot.

    Raises:
        ValueError: neither a folder nor a checkpoint that the hub or its local cache has.
    """
    if Path(path).is_dir():
        return Path(path)
    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=NEEDED_FILES))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"model.path={path} (revision {revision or 'main'}) is no folder, and the hub did not "
            f"give it: {reason}\nCheck the spelling; offline, download it first on a machine that "
            "has a network and name the folder."
        ) from error


def read_config(folder: Path) -> ModelConfig:
    """The ModelConfig of a checkpoint folder.

    Raises:
        ValueError: no config.json, an unknown model_type, or a config that the family refuses.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise ValueError(
            f"model.path={folder} holds no config.json: name the folder of a checkpoint"
        )
    try:
        return config_of(json.loads(file.read_text()), str(folder))
    except KeyError as error:
        raise ValueError(
            f"{file}: {error.args[0]} is missing: not a complete checkpoint"
        ) from error
    except ValueError as error:
        raise ValueError(f"{file}: {str(error).removeprefix('config.json ')}") from error


def check_weights(folder: Path) -> None:
    """Whether load_model will find the tensors that it needs; quick, since it reads none.

    Raises:
        ValueError: as read_config and load_weights say.
    """
    config = read_config(folder)
    check_files(weight_map(config, FAMILIES[config.family].NAMES), folder)


def load_model(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    parallel: TensorParallel = ALONE,
) -> Transformer:
    """The Transformer of a checkpoint folder, on `device`, in `dtype`, ready for inference; of a
    tensor-parallel group, this rank's share of it.

    Raises:
        ValueError: as read_config and load_weights say.
    """
    config = read_config(folder)
    with torch.device("meta"):
        model = Transformer(config, parallel)
    model = model.to(dtype)
    keep_routers_wide(model)
    model = model.to_empty(device=device)
    load_weights(model, weight_map(config, FAMILIES[config.family].NAMES), folder)
    return model.eval().requires_grad_(False)
