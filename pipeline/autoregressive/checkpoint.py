"""What a job asks of an autoregressive checkpoint. transformers reads it; none of its code runs.

Its parts are imported only where a job asks for such a checkpoint: they take a second, and bring
the compiler of torch with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = "*.safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    max_positions: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    """Those of generation_config.json, or else of config.json; its other settings are not taken."""
    dtype: str
    """That of the published weights: `bfloat16`."""


def read_checkpoint(folder: Path) -> Checkpoint:
    """
    Raises:
        UserError: there is no config.json, or it is not of an autoregressive model that this
            version of transformers knows.
    """
    from transformers import GenerationConfig
    from transformers.utils import GENERATION_CONFIG_NAME

    config = _config(folder)
    eos = config.eos_token_id
    if (folder / GENERATION_CONFIG_NAME).is_file():
        eos = GenerationConfig.from_pretrained(folder).eos_token_id or eos
    return Checkpoint(
        max_positions=config.max_position_embeddings,
        vocab_size=config.vocab_size,
        eos_token_ids=tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,),
        dtype=str(config.dtype or torch.float32).removeprefix("torch."),
    )


def check_weights(folder: Path) -> None:
    """
    Raises:
        UserError: the folder holds no weights.
    """
    if not any(folder.glob(WEIGHTS)):
        raise UserError(f"model.path={folder} holds no {WEIGHTS}: copy the checkpoint again")


def load(folder: Path, dtype: str, device: torch.device) -> PreTrainedModel:
    """The model on `device`, ready for inference.

    Raises:
        UserError: as for read_checkpoint; or transformers cannot load the weights.
    """
    from transformers import AutoModelForCausalLM

    _config(folder)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
        )
    except (OSError, ValueError) as error:
        raise UserError(f"model.path={folder}: transformers cannot load it ({error})") from error
    loaded: PreTrainedModel = model.to(device).eval().requires_grad_(False)
    return loaded


def _config(folder: Path) -> Any:
    """The part of config.json that describes the model of the text."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    named = f"model.path={folder} with engine=transformers"
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{named}: no config.json of an autoregressive model that transformers knows "
            f"({reason}); take another checkpoint, or for a diffusion model leave out "
            "engine=transformers"
        ) from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"{named}: model_type {config.model_type!r} generates no text token by token; take an "
            "autoregressive checkpoint"
        )
    return config.get_text_config()
