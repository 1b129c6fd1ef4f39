"""Which families of checkpoints can be loaded, and how is each one's checkpoint read?

Every module here is one family. It translates the family's `config.json` to a ModelConfig, and has
the names of its tensors and its chat template.
"""

from typing import Protocol

from engine.errors import UserError
from engine.model.config import ModelConfig
from engine.model.config_json import ConfigJson, Raw, classes_of
from engine.model.families import (
    dream,
    dream_reasoner,
    fast_dllm_v2,
    illada,
    llada,
    llada2,
    llada_moe,
    rnd1,
    sdar,
    stable_diffcoder,
)
from engine.model.weight_map import Names


class Family(Protocol):
    """The contents of a family's module."""

    DEFAULTS: str
    """The file in conf/model whose settings a checkpoint of this family takes unless it has a file
    of its own (engine/model/defaults.py)."""
    NAMES: Names
    CHAT_TEMPLATE: str
    """Used for checkpoints that come without one."""

    def read_config(self, raw: Raw, name: str = "") -> ModelConfig: ...


FAMILIES: dict[str, Family] = {
    "llada": llada,
    "llada_moe": llada_moe,
    "llada2_moe": llada2,
    "dream": dream,
    "fast_dllm_v2": fast_dllm_v2,
    "sdar": sdar,
    "illada": illada,
    "stable_diffcoder": stable_diffcoder,
    "dream_reasoner": dream_reasoner,
    "rnd1": rnd1,
}
"""ModelConfig.family -> the family's module."""

MODEL_TYPES = {
    "llada": "llada",
    "lladamoe": "llada_moe",
    "llada_moe": "llada_moe",
    "llada2_moe": "llada2_moe",
    "Dream": "dream",
    "Fast_dLLM_Qwen": "fast_dllm_v2",
    "sdar": "sdar",
    "sdar_moe": "sdar",
    "rnd1": "rnd1",
}
"""`model_type` in config.json -> family. Published LLaDA-MoE checkpoints say `llada` as well."""

CLASSES: dict[str, str] = {
    "ILLaDA": "illada",
    "StableDiffcoder": "stable_diffcoder",
    "DreamForCausalLM": "dream_reasoner",
}
"""What is part of the name of the authors' class -> family, where the model_type is another's
(`llama`, `Dream`) or was not seen (iLLaDA)."""

NOT_READ = {
    "llada2_moe_veomni": (
        "dFactory's layout for training, with all experts of a layer in one tensor. Split them "
        "with its scripts/moe_convertor.py --mode split, and put the config.json of the LLaDA2 "
        "checkpoint that was trained beside the result"
    ),
}
"""`model_type` -> why it is not read, and what to do."""


def config_of(raw: Raw, name: str) -> ModelConfig:
    """The ModelConfig of a checkpoint. `raw` is its parsed `config.json`; `name` is its hub id or
    the path of its folder.

    Raises:
        KeyError: a required key is missing.
        UserError: the model_type is unknown, or the family refuses the config or does not know
            one of its keys.
    """
    family, asked = _family_of(raw), ConfigJson(raw)
    config = FAMILIES[family].read_config(asked, name)
    asked.check_all_known(family)
    return config


def _family_of(raw: Raw) -> str:
    model_type = str(raw.get("model_type"))
    if model_type in NOT_READ:
        raise UserError(f"model_type={model_type!r}: {NOT_READ[model_type]}")
    named = [family for part, family in CLASSES.items() if part in " ".join(classes_of(raw))]
    if named:
        return named[0]
    family = MODEL_TYPES.get(model_type)
    if family is None:
        raise UserError(
            f"model_type={raw.get('model_type')!r} is not one of "
            f"{', '.join(sorted(MODEL_TYPES))}: this checkpoint's family is not supported"
        )
    if family == "llada" and raw.get("num_experts"):
        return "llada_moe"
    return family
