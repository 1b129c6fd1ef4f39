"""What the planner sets aside for logits is enough for one position, whatever is done to it."""

from dataclasses import replace

import pytest
import torch

from engine.config import BYTES_PER_LOGIT, EngineConfig
from engine.decoding.base import DecodingStrategy
from engine.decoding.credit import Credit
from engine.decoding.entropy_bound import EntropyBound
from engine.decoding.filters import seen
from engine.decoding.logits import Logits
from engine.decoding.threshold import Threshold
from engine.guidance import guided
from engine.model.plan.footprint import PlannedRank, Setup, logit_bytes
from engine.parallel import ALONE
from tests.engine.filtered import Settings, with_filters
from tests.engine.live_bytes import LiveBytes
from tests.engine.ragged import ragged
from tests.tiny import tiny_config

WORDS = 16384


def setup(dtype: torch.dtype = torch.float32, **engine: int) -> Setup:
    return Setup(
        model=replace(tiny_config(), vocab_size=WORDS),
        dtype=dtype,
        engine=EngineConfig(**engine),
        canvas_len=64,
    )


@pytest.mark.parametrize("weight", [None, 1.5])
@pytest.mark.parametrize("strategy", [Threshold(), Credit(), EntropyBound()], ids=str)
@pytest.mark.parametrize(
    "settings",
    [(0.0, None, None, "raw"), (0.7, 5, 0.9, "filtered"), (0.7, None, 0.9, "raw")],
    ids=str,
)
def test_one_position_stays_within_the_plan(
    settings: Settings, strategy: DecodingStrategy, weight: float | None
) -> None:
    asked, _ = ragged([1], [settings[0]], strategy=strategy)
    asked = with_filters(asked, [settings])
    local_MU, twin_MU = torch.randn(1, WORDS), torch.randn(1, WORDS)
    with LiveBytes() as live:
        local_MU = local_MU.clone()
        if weight is not None:
            local_MU = guided(local_MU, twin_MU.clone(), torch.tensor([weight]))
        strategy.propose(asked, seen(Logits(local_MU, WORDS), asked))
    planned = logit_bytes(setup(logits_bytes=1), ALONE)
    assert live.peak <= planned + 2**12, "and the little that does not grow with the vocabulary"
    if settings[2] is not None:
        assert live.peak > BYTES_PER_LOGIT[True] * WORDS, "filters take more than sampling does"


def test_every_rank_sorts_the_words_of_all() -> None:
    for size in (1, 2, 4):
        found = logit_bytes(setup(logits_bytes=1), PlannedRank(0, size))
        assert found == WORDS // size * (BYTES_PER_LOGIT[True] + 16 + 40 * size)
    one = logit_bytes(setup(torch.bfloat16, logits_bytes=1), ALONE)
    assert one == WORDS * (BYTES_PER_LOGIT[True] + 16 + 40 + 2), "guided in float32"


def test_the_engine_keeps_to_its_own_limit() -> None:
    assert logit_bytes(setup(logits_bytes=2**24), ALONE) == 2**24
