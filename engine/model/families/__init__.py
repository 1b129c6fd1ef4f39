"""Which families of checkpoints can be read? One file each: how its `config.json` translates, what
its tensors are called, its chat template.
"""

from typing import Any, Protocol

from engine.model.config import ModelConfig
from engine.model.families import dream, fast_dllm_v2, llada, llada2, llada_moe, sdar
from engine.model.weight_map import Names


class Family(Protocol):
    """What a family's module holds."""

    NAMES: Names
    CHAT_TEMPLATE: str
    """For checkpoints that come without one."""

    def read_config(self, raw: dict[str, Any], name: str = "") -> ModelConfig: ...


FAMILIES: dict[str, Family] = {
    "llada": llada,
    "llada_moe": llada_moe,
    "llada2_moe": llada2,
    "dream": dream,
    "fast_dllm_v2": fast_dllm_v2,
    "sdar": sdar,
}
"""By ModelConfig.family."""

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
"""`model_type` of config.json -> family; LLaDA-MoE says `llada` too."""


def config_of(raw: dict[str, Any], name: str) -> ModelConfig:
    """The ModelConfig of a `config.json`; `name` is the checkpoint's, or the path of its folder.

    Raises:
        KeyError: a key that must be there is not.
        ValueError: an unknown model_type, or a config that the family refuses.
    """
    model_type = raw.get("model_type")
    family = MODEL_TYPES.get(str(model_type))
    if family is None:
        raise ValueError(
            f"model_type={model_type!r} is none of {', '.join(sorted(MODEL_TYPES))}: this "
            "checkpoint's family is not supported"
        )
    if family == "llada" and raw.get("num_experts"):
        family = "llada_moe"
    return FAMILIES[family].read_config(raw, name)
