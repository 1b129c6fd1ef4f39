"""What the host does between two forwards grows far less than with the number of sequences."""

import time

import numpy as np
import pytest
import torch

from engine.batch import pack
from engine.cache import CACHE_POLICIES
from engine.canvas import Canvases
from engine.config import EngineConfig
from engine.decoding.threshold import Threshold
from engine.iterations import IterationManager
from engine.request import Request
from engine.rules import SequenceRules
from tests.engine.lives import MASK, PAGE, Setting

BLOCK, PROMPT = 32, 256
MOST = 8
"""256 sequences may take this many times as long as one. Sequence by sequence they took more than
20 times as long; in arrays they take 2 to 4 times as long."""


def full_of(cache: str, batch: int) -> tuple[IterationManager, Setting]:
    """A manager with as many waiting sequences, all of which fit into one forward."""
    positions = PROMPT + 2 * BLOCK
    setting = Setting(
        policy=CACHE_POLICIES[cache](),
        decoding=Threshold(),
        block_length=BLOCK,
        attn_block_length=BLOCK if cache == "block_causal" else None,
        is_shifted=False,
        stop_at_eos=True,
        config=EngineConfig(
            cache_tokens=batch * positions,
            iteration_tokens=batch * positions,
            max_sequences=batch,
            page_size=PAGE,
        ),
    )
    manager = IterationManager(
        setting.config,
        num_pages=setting.num_pages,
        rules=SequenceRules(**setting.rules()),
        policy=setting.policy,
        canvases=Canvases(setting.num_pages * PAGE, MASK, torch.device("cpu")),
    )
    for number in range(batch):
        request = Request(request_id=number, prompt_ids=[1] * PROMPT, max_new_tokens=2 * BLOCK)
        manager.waiting.append(request)
    return manager, setting


def least_seconds(cache: str, batch: int) -> float:
    """CPU seconds of the quickest of many iterations, in which each sequence commits one token."""
    manager, setting = full_of(cache, batch)
    seconds = []
    for _ in range(BLOCK + BLOCK // 2):
        start = time.thread_time()
        plan = manager.schedule()
        assert plan is not None
        pack(plan, setting.model)
        seconds.append(time.thread_time() - start)
        tokens = np.full(plan.asked.slots_M.size, -1, dtype=np.int32)
        tokens[np.unique(plan.asked.sequence_M, return_index=True)[1]] = 1
        report = np.stack((tokens, np.ones(tokens.size, dtype=np.float32).view(np.int32)))
        start = time.thread_time()
        assert manager.advance(plan, report) == []
        seconds[-1] += time.thread_time() - start
    assert len(manager.live) == batch
    return min(seconds)


@pytest.mark.parametrize("cache", ["dual", "block_causal", "dkv"])
def test_many_sequences_take_little_longer_than_one(cache: str) -> None:
    least_seconds(cache, 1)
    one, many = least_seconds(cache, 1), least_seconds(cache, 256)
    assert many < MOST * one, f"{many:.6f} s for 256 sequences, {one:.6f} s for one"
