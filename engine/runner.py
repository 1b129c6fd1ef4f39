"""Runs the model on a batch, with the KV pages, and measures the time. Decides nothing.

Shape letters as in engine/batch.py; also D hidden size, H query heads, K key/value heads, E head
size, U words of the vocabulary on this rank.
"""

import time

import torch
from torch import Tensor

from engine.batch import HostBatch
from engine.cache.kv import KVPages
from engine.decoding.logits import Logits
from engine.device_batch import Batch
from engine.kernel_choice import Kernels
from engine.kernels.tiles import HostTiles
from engine.model.transformer import Transformer


class ModelRunner:
    """A model with the kernels that compute it, its KV pages and a clock."""

    def __init__(
        self, model: Transformer, kernels: Kernels, num_pages: int, page_size: int
    ) -> None:
        self.model = model
        self.kernels = kernels
        self.kv = KVPages(model, num_pages, page_size)
        self._clock = _CudaClock() if self.device.type == "cuda" else _HostClock()

    @property
    def is_capturable(self) -> bool:
        """Whether a forward reads nothing on the host, so that a graph can capture it."""
        return self.kernels.is_capturable

    def tiles(self, host: HostBatch) -> list[HostTiles]:
        """How attention divides the runs of a batch among its programs."""
        return self.kernels.tiles(host)

    @property
    def device(self) -> torch.device:
        return self.model.embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.embed.weight.dtype

    def forward(self, batch: Batch, token_ids_Q: Tensor, added_MD: Tensor | None = None) -> Tensor:
        """Hidden states from which the logits of the requested positions follow, [M, D].

        `added_MD` is added to the embeddings of the requested positions. Also writes K and V of
        every query token to the pages.
        """
        with self._clock:
            x_QD = self.model.embed(token_ids_Q)
            if added_MD is not None:
                x_QD.index_add_(0, batch.index_M, added_MD)
            attend = self.kernels.attend(self.kv, batch)
            operations = self.kernels.operations(batch)
            hidden_QD = self.model(x_QD, batch.positions_Q, attend, operations)
            return hidden_QD[batch.logit_index_M]

    def logits(self, hidden_MD: Tensor) -> Logits:
        """Logits for the hidden states, with -inf at the mask token, so that it is never
        predicted."""
        with self._clock:
            local_MU = self.kernels.logits(hidden_MD)
        config, parallel = self.model.config, self.model.parallel
        logits = Logits(local_MU, config.vocab_size, parallel, self.kernels.reduction)
        if config.mask_token_id in logits.words:
            local_MU[:, config.mask_token_id - logits.words.start] = -torch.inf
        return logits

    def forward_s(self) -> float:
        """Seconds spent in the model since the last call. On a GPU, call it only after reading the
        results of the forward; otherwise it waits for them."""
        return self._clock.take_s()


class _HostClock:
    """Adds up the seconds spent inside `with`, including those of a forward that fails."""

    def __init__(self) -> None:
        self._total_s = 0.0

    def __enter__(self) -> None:
        self._total_s -= time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._total_s += time.perf_counter()

    def take_s(self) -> float:
        total_s, self._total_s = self._total_s, 0.0
        return total_s


class _CudaClock:
    """The same for a GPU, measured with CUDA events."""

    def __init__(self) -> None:
        self._spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> None:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self._spans.append((begin, end))

    def __exit__(self, *error: object) -> None:
        self._spans[-1][1].record()

    def take_s(self) -> float:
        total_ms = 0.0
        for begin, end in self._spans:
            end.synchronize()
            total_ms += begin.elapsed_time(end)
        self._spans.clear()
        return total_ms / 1e3
