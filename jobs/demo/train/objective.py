"""Computes the training loss of one batch.

Shape letters as in jobs/demo/train/states.py, engine/model/layers.py; V vocabulary.
"""

import torch.nn.functional as F
from torch import Tensor

from engine.model.layers import over_heads
from engine.model.transformer import Transformer
from jobs.demo.train.states import Batch


def learnt_logits(model: Transformer, batch: Batch) -> Tensor:
    """Logits at the positions to be learnt, float32 [M, V]; dense attention, the batch's mask."""
    shape = batch.tokens_BS.shape
    attn_mask_B1SS = batch.attn_mask_BSS[:, None]

    @over_heads
    def attend(layer: int, q_QHE: Tensor, k_QKE: Tensor, v_QKE: Tensor) -> Tensor:
        q, k, v = (x.unflatten(0, shape).transpose(1, 2) for x in (q_QHE, k_QKE, v_QKE))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask_B1SS, enable_gqa=True)
        return out.transpose(1, 2).flatten(0, 1)

    x_QD = model.embed(batch.tokens_BS.flatten())
    hidden_QD = model(x_QD, batch.positions_BS.flatten(), attend)
    return model.logits(hidden_QD[batch.learnt_M]).float()


def batch_loss(model: Transformer, batch: Batch) -> Tensor:
    """Weighted mean of the cross-entropy at the positions to be learnt."""
    losses_M = F.cross_entropy(learnt_logits(model, batch), batch.targets_M, reduction="none")
    return (losses_M * batch.weights_M).sum() / batch.weights_M.sum().clamp(min=1)
