"""Runs the model on a batch, with the KV pages, and measures the time. Decides nothing.

Shape letters as in engine/batch.py; also D hidden size, H query heads, K key/value heads, E head
size, U words of the vocabulary on this rank.
"""

import torch
from torch import Tensor

from engine.batch import HostBatch
from engine.cache.kv import KVPages
from engine.clock import clock_of
from engine.decoding.logits import Logits
from engine.device_batch import Batch
from engine.guidance import Unconditional, guided
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
        self.device = model.embed.weight.device
        self.clock = clock_of(self.device)

    @property
    def is_capturable(self) -> bool:
        """Whether a forward reads nothing on the host, so that a graph can capture it."""
        return self.kernels.is_capturable

    def tiles(self, host: HostBatch) -> list[HostTiles]:
        """How attention divides the runs of a batch among its programs."""
        return self.kernels.tiles(host)

    @property
    def dtype(self) -> torch.dtype:
        return self.model.embed.weight.dtype

    def forward(self, batch: Batch, token_ids_Q: Tensor, added_MD: Tensor | None = None) -> Tensor:
        """Hidden states from which the logits of the requested positions follow, [M, D], and behind
        them those of the twins: [M + G, D].

        `added_MD` is added to the embeddings of the requested positions, in twins too. Also writes
        K and V of every query token to the pages.
        """
        twins = batch.twins
        with self.clock:
            x_QD = self.model.embed.weight.index_select(0, token_ids_Q)
            if added_MD is not None:
                x_QD.index_add_(0, batch.index_M, added_MD)
                if twins is not None:
                    x_QD.index_add_(0, twins.index_G, added_MD[-twins.index_G.shape[0] :])
            attend = self.kernels.attend(self.kv, batch)
            operations = self.kernels.operations(batch)
            hidden_QD = self.model(x_QD, batch.positions_Q, attend, operations)
            if twins is None:
                return hidden_QD.index_select(0, batch.logit_index_M)
            index = torch.cat((batch.logit_index_M, twins.logit_index_G))
            return hidden_QD.index_select(0, index)

    def logits(self, hidden_MD: Tensor, without: Unconditional | None = None) -> Logits:
        """Logits for the hidden states, with -inf at the mask token, so that it is never
        predicted. `without`: what guides all of them."""
        with self.clock:
            local_MU = self.kernels.logits(hidden_MD)
            if without is not None:
                twin_MU = self.kernels.logits(without.hidden_GD)
                local_MU = guided(local_MU, twin_MU, without.weight_G)
                del twin_MU
        config, parallel = self.model.config, self.model.parallel
        logits = Logits(local_MU, config.vocab_size, parallel, self.kernels.reduction)
        if config.mask_token_id in logits.words:
            local_MU.select(1, config.mask_token_id - logits.words.start).fill_(-torch.inf)
        return logits

    def forward_s(self) -> float:
        """Seconds spent in the model since the last call. On a GPU, call it only after reading the
        results of the forward; otherwise it waits for them."""
        return self.clock.take_s()
