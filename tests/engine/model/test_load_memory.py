"""Loading needs memory for the model and a small part of one file, not for a whole file."""

from pathlib import Path

import pytest

from engine.model.weights import WINDOW_BYTES
from jobs.bench.loading import in_fresh_process
from jobs.bench.synthetic import write_checkpoint

MODEL_BYTES, FILE_BYTES, SLACK_BYTES = 250_000_000, 200_000_000, 40_000_000


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc"
)
def test_the_peak_is_the_model_a_tensor_and_window_bytes(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "llada", MODEL_BYTES, FILE_BYTES)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    loaded = in_fresh_process(tmp_path, "bfloat16")
    assert loaded.wrong == []
    assert loaded.model_bytes >= MODEL_BYTES
    allowed = loaded.model_bytes + loaded.largest_bytes + WINDOW_BYTES + SLACK_BYTES
    assert allowed < loaded.model_bytes + 0.7 * FILE_BYTES, (
        "the limit must be too low for a whole file"
    )
    assert loaded.peak_bytes < allowed
    assert loaded.anon_bytes < loaded.model_bytes + loaded.largest_bytes + SLACK_BYTES
