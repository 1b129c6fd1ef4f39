"""`settings=NAME`: settings for a ready job and a model, by name, from conf/settings/NAME.yaml.

    all:                                  what holds for each of them
      decoding: fixed
    gsm8k:                                of conf=gsm8k
      llada_8b:                           with model=llada_8b
        generation.max_new_tokens: 512

The entries are groups and fields, as on the command line, which comes before them.
"""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from engine.errors import UserError
from pipeline.launch.arguments import CommandLine, read_arguments

SETTINGS = "settings"
ALL = "all"


def named_overrides(cfg: DictConfig, line: CommandLine) -> list[str]:
    """What the composed job's `settings` adds to its command line.

    Raises:
        UserError: they have nothing for this ready job and model, or an entry that is no field.
    """
    choices = cfg.hydra.runtime.choices
    if choices.get(SETTINGS) is None:
        return []
    table: Any = OmegaConf.to_container(cfg[SETTINGS])
    of_job = table.get(choices.conf) or {}
    if choices.model not in of_job:
        has = ", ".join(
            f"conf={conf} model={model}"
            for conf, models in table.items()
            if conf != ALL
            for model in models
        )
        raise UserError(
            f"settings={choices[SETTINGS]}: has nothing for conf={choices.conf} with "
            f"model={choices.model}; it has {has}"
        )
    wanted = table.get(ALL, {}) | of_job[choices.model]
    typed = [f"{key}={'null' if its is None else its}" for key, its in wanted.items()]
    readable = read_arguments(typed, line.program).overrides
    return [its for key, its in zip(wanted, readable, strict=True) if not line.typed(key)]
