"""Every combination on the demo model itself: 48 real prompts of mixed lengths, greedy and sampled.
`make exact` runs it; it takes the better part of an hour."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import engine
from engine.model.load import load_model
from engine.request import Request
from pipeline.config import PromptConfig
from pipeline.prompt import Prompter
from tests.numerics.combinations import Combination, legal
from tests.numerics.exact import assert_exact

pytestmark = pytest.mark.exact

DEMO = Path(engine.__file__).parent.parent / "jobs" / "demo"
MODEL = load_model(DEMO / "model")
NUM_PROMPTS = 48
LENGTHS = (128, 96, 33, 70)
BLOCK = 32


def requests(temperature: float) -> list[Request]:
    prompter = Prompter(DEMO / "model", PromptConfig(), MODEL.config.max_positions)
    rows = pq.read_table(DEMO / "prompts.parquet").to_pylist()[:NUM_PROMPTS]
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
@pytest.mark.parametrize("combination", list(legal(MODEL.config, {})), ids=str)
def test_engine_equals_unbatched_reference(combination: Combination, temperature: float) -> None:
    asked = requests(temperature)
    assert len({len(request.prompt_ids) for request in asked}) > 24
    assert_exact(MODEL, combination, [replace(request) for request in asked], BLOCK)
