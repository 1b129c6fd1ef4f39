"""Stores K and V: the tensors behind the pages.

Shape letters: N pages, P positions of a page, S = N * P slots, Q query tokens, K key/value heads,
E head size.
"""

from torch import Tensor

from engine.model.transformer import Transformer


class KVPages:
    """K and V of every layer, addressed by slot (page * page_size + offset) or by page.

    Holds the key/value heads of this rank, in the dtype and on the device of the embeddings.
    """

    def __init__(self, model: Transformer, num_pages: int, page_size: int) -> None:
        config, like = model.config, model.embed.weight
        shape = (2, config.num_layers, num_pages, page_size, model.num_kv_heads, config.head_dim)
        self._pages = like.new_zeros(shape)

    @property
    def page_size(self) -> int:
        """Canvas positions of a page."""
        return self._pages.shape[3]

    @property
    def num_bytes(self) -> int:
        return self._pages.nbytes

    def write(self, layer: int, slots_Q: Tensor, k_QKE: Tensor, v_QKE: Tensor) -> None:
        """Store K and V of the query tokens at their slots (int64)."""
        for pages_NPKE, new_QKE in zip(self._pages[:, layer], (k_QKE, v_QKE), strict=True):
            pages_NPKE.flatten(0, 1).index_copy_(0, slots_Q, new_QKE)

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """(K, V) of a layer, each [N, P, K, E]."""
        return self._pages[0, layer], self._pages[1, layer]
