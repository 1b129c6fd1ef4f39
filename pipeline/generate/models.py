"""Keeps the model that was loaded last, for jobs that follow one another in a process.

Jobs of one checkpoint differ in their cache, decoding strategy or rows, and an engine is made anew
for each; the weights are read once.
"""

import gc
from pathlib import Path

import torch

from engine.model.load import load_model
from engine.model.transformer import Transformer
from engine.parallel import TensorParallel


class Models:
    """At most one model: another one takes its place. A model that several ranks hold together is
    not kept, because it talks through the process group of its job."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._model: Transformer | None = None
        self.num_loads = 0

    def load(
        self,
        checkpoint: Path,
        dtype: torch.dtype,
        device: torch.device,
        parallel: TensorParallel,
        max_positions: int | None = None,
    ) -> Transformer:
        """The Transformer of a checkpoint (see load_model, whose errors this raises). What the
        engine of the job before has held is free then."""
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        key = (checkpoint.resolve(), dtype, device, max_positions)
        if self._model is not None and self._key == key and parallel.size == 1:
            return self._model
        self._key = self._model = None
        model = load_model(checkpoint, dtype, device, parallel, max_positions)
        self.num_loads += 1
        if parallel.size == 1:
            self._key, self._model = key, model
        return model
