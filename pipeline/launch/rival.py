"""Which settings does a job with engine=transformers have?

Its checkpoint is autoregressive, and has no option in the group `model`. Of a ready job it takes
the data, the prompts and the lengths, and leaves the diffusion model with its decoding, cache and
block length. The dtype is that of the published weights, unless one is typed.
"""

import os
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from engine.config import OF_TRANSFORMERS
from engine.errors import UserError
from engine.model.load import fetch_config
from pipeline.autoregressive.checkpoint import read_checkpoint
from pipeline.config.job import COMPONENTS, OF_DIFFUSION, JobConfig
from pipeline.launch.compose import NO_MODEL

CHOSEN = "engine=transformers"
WITHOUT_MODEL = f"model={NO_MODEL}"


def is_rival(cfg: DictConfig) -> bool:
    return bool(cfg.engine.backend == "transformers")


def of_rival(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """The overrides of a job that was composed with engine=transformers, such that nothing of a
    diffusion model is left in it.

    Raises:
        UserError: a setting is typed that does not apply, there is no model.path, or it is no
            autoregressive checkpoint.
    """
    for override in overrides:
        _check_applies(override)
    typed = {override.partition("=")[0] for override in overrides}
    is_chosen = cfg.hydra.runtime.choices.model is not None
    if OmegaConf.is_missing(cfg.model, "path") or (is_chosen and "model.path" not in typed):
        raise UserError(
            f"{CHOSEN}: give the autoregressive checkpoint, model.path=FOLDER or a name on the "
            "hub, for example model.path=Qwen/Qwen2.5-3B-Instruct"
        )
    if "model.dtype" in typed:
        return [WITHOUT_MODEL, *overrides]
    path, revision = os.path.expanduser(cfg.model.path), cfg.model.revision
    dtype = read_checkpoint(
        fetch_config(path, revision if "model.revision" in typed else None)
    ).dtype
    return [WITHOUT_MODEL, f"model.dtype={dtype}", *overrides]


def note_of(config: JobConfig) -> str:
    """What the job says at its start."""
    return (
        f"{CHOSEN} model.path={config.model.path}: dtype {config.model.dtype}, continuous batching "
        "of transformers; decoding, cache and block length of diffusion models do not apply"
    )


def _check_applies(override: str) -> None:
    """
    Raises:
        UserError: the override sets what an autoregressive model has no use for.
    """
    if override == WITHOUT_MODEL:
        return
    key = override.partition("=")[0]
    section, _, field = key.partition(".")
    is_of_engine = section == "engine" and field.partition(".")[0] not in ("", *OF_TRANSFORMERS)
    is_of_rows = section in ("generation", "columns") and field in OF_DIFFUSION
    is_of_model = key in ("model", "model.max_positions")
    if is_of_model or section in COMPONENTS or is_of_engine or is_of_rows:
        raise UserError(
            f"{override} with {CHOSEN}: does not apply to an autoregressive checkpoint, which "
            "transformers runs; leave it out"
            f"{' and give model.path' if key == 'model' else ''}"
        )
