"""On a GPU, forwards that are captured as CUDA graphs generate what eager ones do."""

import gc
import logging
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.engine import DiffusionEngine
from engine.errors import UserError
from engine.graphs import CudaCapture, Graphs
from engine.model.transformer import Transformer
from engine.request import Result
from tests.engine.graphed import SOFT, requests_of_both_kinds
from tests.numerics.combinations import Combination
from tests.tiny import tiny_llada2_model, tiny_model

pytestmark = pytest.mark.gpu

BLOCK = 12
THRESHOLD = Combination({"name": "dual"}, {"name": "threshold"})
PAIRS = {
    "bidirectional": [
        ("dual", "threshold"),
        ("prefix", "entropy_bound"),
        ("vicinity", "hierarchical"),
        ("commit", "credit"),
        ("dkv", "klass"),
        ("none", "edit"),
        ("dual", "factor"),
    ],
    "block-causal": [
        ("block_causal", "threshold"),
        ("block_causal", "edit"),
        ("block_causal", "credit"),
        ("block_causal", "fixed"),
    ],
}
COMBINATIONS = [
    pytest.param(attention, Combination({"name": cache}, {"name": decoding}, soft))
    for attention, pairs in PAIRS.items()
    for cache, decoding in pairs
    for soft in (None, SOFT)
]


def model_of(attention: str, dtype: torch.dtype) -> Transformer:
    made = tiny_model() if attention == "bidirectional" else tiny_llada2_model(block_length=BLOCK)
    return made.to("cuda", dtype)


def engine_of(
    combination: Combination, *, graphs: bool, dtype: torch.dtype, attention: str = "bidirectional"
) -> DiffusionEngine:
    return combination.engine(
        model_of(attention, dtype),
        block_length=BLOCK,
        max_sequences=5,
        kernels="triton",
        graphs=graphs,
    )


def results_of(engine: DiffusionEngine) -> dict[Any, Result]:
    return {result.request_id: result for result in engine.results(requests_of_both_kinds(16))}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("attention", "combination"), COMBINATIONS, ids=str)
def test_graphs_generate_what_eager_forwards_do(
    attention: str, combination: Combination, dtype: torch.dtype
) -> None:
    """The same tokens and, since a row's bits do not depend on its batch, the same confidences."""
    engine, eager = (
        engine_of(combination, graphs=graphs, dtype=dtype, attention=attention)
        for graphs in (True, False)
    )
    assert results_of(engine) == results_of(eager)
    assert engine.forwards.graphs is not None
    assert len(engine.forwards.graphs) > 2
    assert eager.forwards.graphs is None
    assert engine.stats.num_padding_tokens > 0
    assert 0 < engine.stats.forward_s < engine.stats.iteration_s


def test_few_graphs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are dropped from the shared memory pool, and others captured in it."""
    monkeypatch.setattr("engine.graphs.MOST_GRAPHS", 2)
    monkeypatch.setattr("engine.graphs.SIGHTINGS_WHEN_FULL", 3)
    engine, eager = (
        engine_of(THRESHOLD, graphs=graphs, dtype=torch.bfloat16) for graphs in (True, False)
    )
    assert results_of(engine) == results_of(eager)
    assert engine.forwards.graphs is not None
    assert len(engine.forwards.graphs) == 2


def test_engines_that_nobody_uses_are_not_freed_in_a_capture() -> None:
    """They refer to themselves, so that only the garbage collector frees them, with their graphs
    and pinned memory; it runs often, and looks at nothing older than the test."""
    eager = results_of(engine_of(THRESHOLD, graphs=False, dtype=torch.bfloat16))
    frequency = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100, 1, 1)
    try:
        for _ in range(3):
            engine = engine_of(THRESHOLD, graphs=True, dtype=torch.bfloat16)
            assert results_of(engine) == eager
            engine.itself = engine  # type: ignore[attr-defined]
            del engine
    finally:
        gc.set_threshold(*frequency)
        gc.unfreeze()


def with_device_part(engine: DiffusionEngine, device_part: Any) -> None:
    forwards, capture = engine.forwards, CudaCapture(engine.runner.device)
    forwards.graphs = Graphs(device_part, forwards.sender, capture)


def test_without_memory_for_a_capture_forwards_are_eager(caplog: pytest.LogCaptureFixture) -> None:
    """The allocation fails in the middle of the capture. The stream is as before, and the tokens
    are those of eager forwards."""
    engine, eager = (
        engine_of(THRESHOLD, graphs=graphs, dtype=torch.bfloat16) for graphs in (True, False)
    )

    def device_part(batch: Any) -> Tensor:
        report = engine.forwards.device_part(batch)
        if torch.cuda.is_current_stream_capturing():
            torch.empty(2**50, dtype=torch.uint8, device="cuda")
        return report

    with_device_part(engine, device_part)
    stream = torch.cuda.current_stream()
    with caplog.at_level(logging.WARNING, logger="engine"):
        assert results_of(engine) == results_of(eager)
    assert torch.cuda.current_stream() == stream
    assert sum("no memory to capture" in record.message for record in caplog.records) == 1
    assert engine.stats.num_failed_forwards == 0


def test_a_forward_that_reads_the_device_names_the_setting() -> None:
    """In a process of its own: after a broken capture, torch's allocator takes it for one that goes
    on, and every later capture or `empty_cache` of the process fails."""
    code = f"from {__name__} import capture_what_reads_the_device as its; its()"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert said.stdout.split() == ["named"], said.stderr


def capture_what_reads_the_device() -> None:
    engine = engine_of(THRESHOLD, graphs=True, dtype=torch.bfloat16)

    def device_part(batch: Any) -> Tensor:
        report = engine.forwards.device_part(batch)
        return report if report.sum().item() else report + 0

    with_device_part(engine, device_part)
    with pytest.raises(UserError, match=r"engine\.graphs=false"):
        results_of(engine)
    print("named", flush=True)
