"""Which families of checkpoints can be loaded, and how is each one's checkpoint read?

Every module here is one family. It translates the family's `config.json` to a ModelConfig, and has
the names of its tensors and its chat template.
"""

from typing import Any, Protocol

from engine.errors import UserError
from engine.model.config import ModelConfig
from engine.model.families import dream, fast_dllm_v2, llada, llada2, llada_moe, sdar
from engine.model.weight_map import Names


class Family(Protocol):
    """The contents of a family's module."""

    DEFAULTS: str
    """The file in conf/model whose settings a checkpoint of this family takes unless it has a file
    of its own (engine/model/defaults.py)."""
    NAMES: Names
    CHAT_TEMPLATE: str
    """Used for checkpoints that come without one."""

    def read_config(self, raw: dict[str, Any], name: str = "") -> ModelConfig: ...


FAMILIES: dict[str, Family] = {
    "llada": llada,
    "llada_moe": llada_moe,
    "llada2_moe": llada2,
    "dream": dream,
    "fast_dllm_v2": fast_dllm_v2,
    "sdar": sdar,
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
}
"""`model_type` in config.json -> family. Published LLaDA-MoE checkpoints say `llada` as well."""


def config_of(raw: dict[str, Any], name: str) -> ModelConfig:
    """The ModelConfig of a checkpoint. `raw` is its parsed `config.json`; `name` is its hub id or
    the path of its folder.

    Raises:
        KeyError: a required key is missing.
        UserError: the model_type is unknown, or the family refuses the config.
    """
    model_type = raw.get("model_type")
    family = MODEL_TYPES.get(str(model_type))
    if family is None:
        raise UserError(
            f"model_type={model_type!r} is not one of {', '.join(sorted(MODEL_TYPES))}: this "
            "checkpoint's family is not supported"
        )
    if family == "llada" and raw.get("num_experts"):
        family = "llada_moe"
    return FAMILIES[family].read_config(raw, name)
