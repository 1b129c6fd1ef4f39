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
from engine.decoding.suppress import HeldBack
from engine.device_batch import Batch
from engine.guidance import Unconditional, guided
from engine.kernel_choice import Kernels
from engine.kernels.tiles import HostTiles
from engine.model.transformer import Transformer


class ModelRunner:
    """A model with the kernels that compute it, its KV pages and a clock."""

    def __init__(
        self,
        model: Transformer,
        kernels: Kernels,
        num_pages: int,
        page_size: int,
        held: HeldBack,
    ) -> None:
        num_words = len(model.parallel.share(model.config.vocab_size))
        num_held = len(held.forbidden) + len(held.uncounted)
        assert num_words > num_held, "a rank needs a word that may be predicted"
        self.model = model
        self.kernels = kernels
        self._held = held
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

    def forward(self, batch: Batch, token_ids_Q: Tensor, added_ND: Tensor | None = None) -> Tensor:
        """Hidden states from which the logits follow: of the requested positions, behind them of
        the softened ones, and behind these of the requested ones in twins: [M + X + G, D].

        `added_ND`, N = M + X, is added to the embeddings of the first two, and of twins as of the
        positions that they are of. Also writes K and V of every query token to the pages.
        """
        twins = batch.twins
        with self.clock:
            index_N, logit_index_N = batch.index_M, batch.logit_index_M
            if batch.softened is not None:
                index_N = torch.cat((index_N, batch.softened.index_X))
                logit_index_N = torch.cat((logit_index_N, batch.softened.logit_index_X))
            x_QD = self.model.embed.weight.index_select(0, token_ids_Q)
            if added_ND is not None:
                x_QD.index_add_(0, index_N, added_ND)
                if twins is not None:
                    num_asked, num_guided = batch.index_M.shape[0], twins.index_G.shape[0]
                    added_GD = added_ND[num_asked - num_guided : num_asked]
                    x_QD.index_add_(0, twins.index_G, added_GD)
            attend = self.kernels.attend(self.kv, batch)
            operations = self.kernels.operations(batch)
            if twins is not None:
                logit_index_N = torch.cat((logit_index_N, twins.logit_index_G))
            return self.model(x_QD, batch.positions_Q, attend, operations, logit_index_N)

    def logits(self, hidden_MD: Tensor, without: Unconditional | None = None) -> Logits:
        """Logits for the hidden states, with -inf at the words that are never predicted. `without`:
        what guides all of them."""
        with self.clock:
            local_MU = self.kernels.logits(hidden_MD)
            if without is not None:
                twin_MU = self.kernels.logits(without.hidden_GD)
                local_MU = guided(local_MU, twin_MU, without.weight_G)
                del twin_MU
        config, parallel = self.model.config, self.model.parallel
        logits = Logits(
            local_MU,
            config.vocab_size,
            parallel,
            self.kernels.reduction,
            uncounted=self._held.uncounted,
        )
        logits.forbid(self._held.forbidden)
        return logits

    def forward_s(self) -> float:
        """Seconds spent in the model since the last call. On a GPU, call it only after reading the
        results of the forward; otherwise it waits for them."""
        return self.clock.take_s()
