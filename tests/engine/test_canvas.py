"""Canvases that are laid out are on the device after one write."""

import torch

from engine.canvas import Canvases

MASK = 9


def test_the_last_layout_of_a_slot_holds() -> None:
    """A request that is dropped before its first forward leaves its pages to the next one."""
    canvases = Canvases(16, MASK, torch.device("cpu"))
    canvases.lay_out(0, [1, 2, 3], 6)
    canvases.lay_out(8, [4], 3)
    canvases.lay_out(2, [5], 5)
    canvases.write()
    expected = [1, 2, 5, MASK, MASK, MASK, MASK, MASK, 4, MASK, MASK]
    assert canvases.tokens(torch.arange(11)).tolist() == expected
    canvases.lay_out(0, [7], 1)
    assert canvases.tokens(torch.arange(2)).tolist() == [1, 2]
    canvases.write()
    canvases.write()
    assert canvases.tokens(torch.arange(2)).tolist() == [7, 2]


def test_positions_without_a_token_are_masked_whether_read_or_not() -> None:
    canvases = Canvases(16, MASK, torch.device("cpu"))
    canvases.lay_out(0, [1, 2, 3], 6)
    canvases.write()
    token_M = canvases.tokens(torch.arange(3, 6))
    for read, known in (
        (token_M, canvases.mask.expand(3)),
        (canvases.is_masked(token_M), canvases.all_masked(3)),
    ):
        assert read.dtype == known.dtype
        assert torch.equal(read, known)
