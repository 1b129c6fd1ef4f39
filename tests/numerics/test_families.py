"""Small checkpoints of every family, in the published layout: the engine generates the plain loop's
tokens, with the components that the model's YAML selects and with others."""

from pathlib import Path
from typing import Any

import pytest

from engine.engine import DiffusionEngine
from engine.legal import block_length_of
from engine.model.load import load_model
from engine.model.transformer import Transformer
from pipeline.config.job import as_dict
from tests.launched import composed
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_exact
from tests.published import small_vocabulary, write_weights
from tests.published_configs import LAYOUT_OF
from tests.tiny import EOS, MASK, mixed_requests

# Layouts that tests/numerics/test_same_tokens.py does not cover.
BLOCKS: dict[str, dict[str, Any]] = {
    "llada_moe": {},
    "dream": {},
    "fast_dllm_v2": {"bd_size": 16},
    "fast_dllm_v2_small": {"bd_size": 16},
    "sdar": {"block_size": 8},
    "sdar_moe": {"block_size": 8},
    "rnd1": {},
}
CAUSAL_CACHES: list[dict[str, Any]] = [
    {"name": "none"},
    {"name": "block_causal"},
    {"name": "block_causal", "sub_block_cache": True, "fused_commit": False},
]
BIDIRECTIONAL_CACHES: list[dict[str, Any]] = [
    {"name": name} for name in ("none", "prefix", "dual", "vicinity", "commit", "dkv")
]


def small(folder: Path, layout: str, **changes: Any) -> Transformer:
    write_weights(folder, layout, **small_vocabulary(layout, MASK, EOS), **changes)
    return load_model(folder)


@pytest.mark.parametrize("name", LAYOUT_OF)
def test_the_defaults_of_a_model_give_the_plain_loops_tokens(tmp_path: Path, name: str) -> None:
    model, config = small(tmp_path, LAYOUT_OF[name]), composed(f"model={name}", "conf=humaneval")
    job = as_dict(config)
    combination = Combination(job["cache"], job["decoding"])
    block_length = block_length_of(model.config, config.engine)
    assert_exact(model, combination, mixed_requests(4), block_length)
    # The job's engine is made from the whole config; the combination has only parts of it.
    engine = DiffusionEngine(
        model, config=config.engine, decoding=config.decoding, cache=config.cache
    )
    results = {result.request_id: result for result in engine.results(mixed_requests(4))}
    expected = combination.run(model, mixed_requests(4), block_length=block_length)
    assert {i: result.token_ids for i, result in results.items()} == {
        i: result.token_ids for i, result in expected.items()
    }


@pytest.mark.parametrize("layout", BLOCKS)
@pytest.mark.parametrize("decoding", ["threshold", "credit", "edit"])
def test_tokens_equal_the_plain_loop(tmp_path: Path, layout: str, decoding: str) -> None:
    model = small(tmp_path, layout, **BLOCKS[layout])
    is_causal = model.config.block_length is not None
    for cache in CAUSAL_CACHES if is_causal else BIDIRECTIONAL_CACHES:
        if decoding == "edit" and cache["name"] == "dkv":
            continue
        combination = Combination(cache, {"name": decoding})
        assert_exact(model, combination, mixed_requests(4), 4 if is_causal else 16)
