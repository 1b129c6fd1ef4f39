"""Which checkpoint does a job run, and with whose settings?

model=NAME on the command line or in the ready job    that checkpoint, with its settings
model.path=X without model=NAME                       X, with the settings that are X's own in
                                                      conf/model (engine/model/defaults.py)
stand_in=true without either                          the demo's tokenizer; no model is run
none of these                                         an error: nobody wants the demo by chance
"""

import os

from omegaconf import DictConfig, OmegaConf

from engine.errors import UserError
from engine.model.defaults import defaults_at
from pipeline.config.job import JobConfig
from pipeline.launch.arguments import CommandLine

STAND_IN = "demo"
"""The option whose tokenizer a job without a model uses."""


def model_option(cfg: DictConfig, line: CommandLine) -> str | None:
    """The option of group `model` that the composed job is to take in place of its own, if any.

    Raises:
        UserError: the checkpoint at model.path is not there, or its family is not supported.
    """
    is_chosen = cfg.hydra.runtime.choices.model is not None
    if line.typed("model") or (is_chosen and not line.typed("model.path")):
        return None
    if not OmegaConf.is_missing(cfg.model, "path"):
        return defaults_at(os.path.expanduser(cfg.model.path), cfg.model.revision).option
    return STAND_IN if cfg.stand_in else None


def check_model_is_chosen(cfg: DictConfig, known: list[str]) -> None:
    """
    Raises:
        UserError: the job has no model.
    """
    if OmegaConf.is_missing(cfg.model, "path"):
        raise UserError(
            "model is missing: choose one by name, "
            f"{', '.join(f'model={name}' for name in known)}; or give a checkpoint, "
            "model.path=FOLDER or a name on the hub. (model=demo and model=demo_block are small "
            "models for trying the pipeline out.)"
        )


def settings_taken(option: str, config: JobConfig, choices: DictConfig) -> str:
    """What the job says at its start if it chose the settings itself."""
    if config.stand_in:
        return f"stand_in=true: no model is run; tokenizer of {config.model.path}"
    block_length = config.engine.block_length
    return (
        f"model.path={config.model.path}: settings of model={option}: dtype {config.model.dtype}, "
        f"decoding={choices.decoding}, cache={choices.cache}, block length "
        f"{'as in its config.json' if block_length is None else block_length}"
        f"{'' if config.prompt.chat else ', prompt.chat=false'}"
        f"{', prompt.add_bos=true' if config.prompt.add_bos else ''}"
    )
