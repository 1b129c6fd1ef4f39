"""Stores K and V: the tensors behind the pages.

Behind the last page is a scratch page, which belongs to no sequence: query tokens that only pad a
batch are written there (engine/device_batch.py).

Shape letters: N pages (with the scratch page), P positions of a page, S = N * P slots, Q query
tokens, K key/value heads, E head size.
"""

from torch import Tensor

from engine.model.transformer import Transformer


class KVPages:
    """K and V of every layer, addressed by slot (page * page_size + offset) or by page.

    Holds the key/value heads of this rank, in the dtype and on the device of the embeddings.
    """

    def __init__(self, model: Transformer, num_pages: int, page_size: int) -> None:
        config, like = model.config, model.embed.weight
        per_page = (page_size, model.num_kv_heads, config.head_dim)
        self._pages = like.new_zeros((2, config.num_layers, num_pages + 1, *per_page))

    @property
    def page_size(self) -> int:
        """Canvas positions of a page."""
        return self._pages.shape[3]

    @property
    def page_bytes(self) -> int:
        """Bytes of K and V of one page, over all layers."""
        return self._pages[:, :, 0].nbytes

    def write(self, layer: int, slots_Q: Tensor, k_QKE: Tensor, v_QKE: Tensor) -> None:
        """Store K and V of the query tokens at their slots (int64)."""
        for pages_NPKE, new_QKE in zip(self._pages[:, layer], (k_QKE, v_QKE), strict=True):
            pages_NPKE.flatten(0, 1).index_copy_(0, slots_Q, new_QKE)

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """(K, V) of a layer, each [N, P, K, E]."""
        return self._pages[0, layer], self._pages[1, layer]
