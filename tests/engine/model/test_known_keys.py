"""Every key of a config.json is read, checked, or known to be harmless; else it is refused."""

from typing import Any

import pytest

from engine.model.families import config_of
from engine.model.plan.published import PUBLISHED
from tests.published_configs import CONFIGS

DREAM, LLADA2 = CONFIGS["dream"], CONFIGS["llada2"]


@pytest.mark.parametrize("layout", CONFIGS)
def test_all_keys_of_a_published_config_are_known(layout: str) -> None:
    config_of(CONFIGS[layout], layout)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_planners_keys_are_known(name: str) -> None:
    config_of(PUBLISHED[name].raw, PUBLISHED[name].hub_id)


@pytest.mark.parametrize("layout", CONFIGS)
def test_unknown_keys_are_all_named_with_their_values(layout: str) -> None:
    raw = CONFIGS[layout] | {"window_of_v": 7, "harmless_if_null": None, "gates": ["a"]}
    with pytest.raises(ValueError, match=r"window_of_v=7, gates=\['a'\]: not known to") as caught:
        config_of(raw, layout)
    assert "harmless_if_null" not in str(caught.value)
    assert "delete it from a copy of the checkpoint's config.json" in str(caught.value)


@pytest.mark.parametrize("layout", CONFIGS)
def test_what_transformers_writes_of_itself_is_harmless(layout: str) -> None:
    of_transformers = {
        "_name_or_path": "somewhere",
        "dtype": "bfloat16",
        "id2label": {"0": "LABEL_0"},
        "pruned_heads": {},
        "repetition_penalty": 1.05,
        "temperature": 0.7,
        "use_cache": True,
    }
    assert config_of(CONFIGS[layout] | of_transformers, layout) == config_of(
        CONFIGS[layout], layout
    )


REFUSED: list[tuple[dict[str, Any], str]] = [
    (LLADA2 | {"expert_capacity": 48, "block_size": 32}, "expert_capacity=48: this is LLaDA2.2"),
    (LLADA2 | {"delete_token_id": 156930}, "delete_token_id=156930: this is LLaDA2.2"),
    (LLADA2 | {"split_token_id": 156931}, "split_token_id=156931: this is LLaDA2.2"),
    (
        LLADA2 | {"rope_theta": 3e6, "max_position_embeddings": 131072},
        "rope_theta=3000000.0, max_position_embeddings=131072: this is LLaDA2.2",
    ),
    (LLADA2 | {"model_type": "llada2_moe_veomni"}, r"moe_convertor\.py --mode split"),
    (DREAM | {"use_qk_norm": True}, "use_qk_norm=True: not known to the dream loader"),
    (DREAM | {"attention_bias": False}, "attention_bias=False: the Dream loader supports only"),
    (DREAM | {"quantization_config": {"bits": 4}}, "quantization_config="),
    (DREAM | {"layer_types": ["sliding_attention"] * 2}, "layer_types has sliding_attention"),
    (
        DREAM | {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}},
        "contradict each other",
    ),
    (
        DREAM | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "base": 2}},
        "rope_parameters=.*only rotary embedding of type 'default'",
    ),
    (DREAM | {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_scaling=.*'default'"),
    (CONFIGS["llada"] | {"rope_full_precision": False}, "rope_full_precision=False"),
    (DREAM | {"model_type": "llama"}, "model_type='llama' is not one of"),
    (DREAM | {"block_size": 32}, "block_size=32: not known to the dream loader"),
    (CONFIGS["dream_reasoner"] | {"use_qk_norm": False}, "use_qk_norm=False: the DreamReasoner l"),
    (CONFIGS["dream_reasoner"] | {"attention_bias": True}, "attention_bias=True"),
    (CONFIGS["illada"] | {"layer_norm_eps": 1e-5}, "layer_norm_eps=1e-05: the iLLaDA loader"),
    (CONFIGS["illada"] | {"mlp_bias": True}, "mlp_bias=True: the iLLaDA loader supports only"),
    (CONFIGS["illada"] | {"head_dim": 16}, "head_dim=16: the iLLaDA loader supports only 12"),
    (CONFIGS["stable_diffcoder"] | {"attention_bias": True}, "attention_bias=True"),
    (CONFIGS["rnd1"] | {"is_causal": True}, "is_causal=True: the RND1 loader supports only False"),
    (CONFIGS["rnd1"] | {"decoder_sparse_step": 2}, "decoder_sparse_step=2: the RND1 loader"),
]


def test_families_are_told_apart_by_the_names_of_their_classes() -> None:
    """DreamReasoner says that it is a Dream, Stable-DiffCoder that it is a Llama."""
    reasoner, coder = CONFIGS["dream_reasoner"], CONFIGS["stable_diffcoder"]
    assert config_of(reasoner, "x").family == "dream_reasoner"
    assert config_of(DREAM, "x").family == "dream"
    for left_out in ("auto_map", "architectures"):
        some = {key: value for key, value in coder.items() if key != left_out}
        assert config_of(some, "x").family == "stable_diffcoder"
    with pytest.raises(ValueError, match="model_type='llama' is not one of"):
        config_of(coder | {"architectures": ["LlamaForCausalLM"], "auto_map": {}}, "x")


def test_illada_is_tied_unless_its_config_says_otherwise() -> None:
    raw = {key: v for key, v in CONFIGS["illada"].items() if key != "tie_word_embeddings"}
    assert config_of(raw, "x").tied_head
    assert not config_of(raw | {"tie_word_embeddings": False}, "x").tied_head
    coder = {k: v for k, v in CONFIGS["stable_diffcoder"].items() if k != "tie_word_embeddings"}
    assert not config_of(coder, "x").tied_head


@pytest.mark.parametrize(("raw", "message"), REFUSED)
def test_a_config_of_another_architecture_is_refused(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        config_of(raw, "checkpoint")
    assert "\n" not in str(caught.value)


def test_plain_rotary_scaling_is_no_scaling() -> None:
    plain = {"rope_type": "default", "factor": 1.0}
    assert config_of(DREAM | {"rope_scaling": plain}, "x") == config_of(DREAM, "x")
