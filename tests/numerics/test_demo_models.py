"""Every combination on the demo models: 48 prompts of mixed lengths, greedy and sampled.

`make exact` runs it; it takes the better part of an hour on two cores.
"""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import engine
from engine.model.load import load_model
from engine.request import Request
from pipeline.config.job import PromptConfig
from pipeline.prompt.prompter import Prompter
from tests.numerics.combinations import Combination, legal
from tests.numerics.exact import assert_exact

pytestmark = pytest.mark.exact

DEMO = Path(engine.__file__).parent.parent / "jobs" / "demo"
FOLDERS = {"demo": DEMO / "model", "demo_block": DEMO / "model_block"}
MODELS = {name: load_model(folder) for name, folder in FOLDERS.items()}
NUM_PROMPTS = 48
LENGTHS = (96, 24, 64, 33)
BLOCK = 16
"""For the bidirectional model. Less than the default, so that a sequence has more blocks."""
COMBINATIONS = [
    pytest.param(name, combination, id=f"{name}-{combination}")
    for name, model in MODELS.items()
    for combination in legal(model.config, {})
]


def requests(name: str, temperature: float) -> list[Request]:
    prompter = Prompter(FOLDERS[name], PromptConfig(), MODELS[name].config.max_positions)
    rows = pq.read_table(DEMO / "task" / "prompts.parquet").to_pylist()[:NUM_PROMPTS]
    return [
        Request(
            request_id=i,
            prompt_ids=prompter.token_ids(row, LENGTHS[i % 4]),
            max_new_tokens=LENGTHS[i % 4],
            temperature=temperature,
            seed=i * 7919,
        )
        for i, row in enumerate(rows)
    ]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize(("name", "combination"), COMBINATIONS)
def test_engine_equals_unbatched_reference(
    name: str, combination: Combination, temperature: float
) -> None:
    asked = requests(name, temperature)
    assert len({len(request.prompt_ids) for request in asked}) > 24
    block_length = MODELS[name].config.block_length or BLOCK
    assert_exact(MODELS[name], combination, asked, block_length)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_block_causal_cache_is_exact_and_a_fused_commit_saves_a_forward_per_block(
    temperature: float,
) -> None:
    model, asked = MODELS["demo_block"], requests("demo_block", temperature)
    length = model.config.block_length
    assert length is not None
    plain, fused, apart = (
        Combination({"name": name, **more}, {"name": "threshold"}).run(model, asked)
        for name, more in (
            ("none", {}),
            ("block_causal", {}),
            ("block_causal", {"fused_commit": False}),
        )
    )
    for request in asked:
        i, start = request.request_id, len(request.prompt_ids)
        assert plain[i].token_ids == fused[i].token_ids == apart[i].token_ids
        assert plain[i].num_iterations == fused[i].num_iterations
        end = start + len(fused[i].token_ids) - (fused[i].finish_reason == "length")
        num_turns = end // length - start // length
        assert apart[i].num_iterations == fused[i].num_iterations + num_turns + (start >= length)
