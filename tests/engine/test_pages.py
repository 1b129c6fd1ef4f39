"""The page allocator: runs never overlap, free neighbours merge, and no page is lost."""

import random

import pytest

from engine.cache.pages import PageAllocator


def test_first_fit_and_none_when_no_run_is_long_enough() -> None:
    pages = PageAllocator(10)
    assert [pages.allocate(n) for n in (4, 3, 3)] == [0, 4, 7]
    assert pages.allocate(1) is None
    pages.free(4)
    assert pages.allocate(4) is None, "a run is contiguous: 3 free pages hold no 4"
    assert pages.allocate(2) == 4


def test_neighbours_merge_whatever_the_order() -> None:
    pages = PageAllocator(9)
    runs = [pages.allocate(3) for _ in range(3)]
    for first in (runs[1], runs[0], runs[2]):
        pages.free(first)
        pages.check_integrity()
    assert pages.allocate(9) == 0


def test_freeing_twice_is_caught() -> None:
    pages = PageAllocator(4)
    first = pages.allocate(2)
    pages.free(first)
    with pytest.raises(AssertionError, match="freed twice"):
        pages.free(first)


@pytest.mark.parametrize("seed", range(5))
def test_no_page_is_lost_under_random_use(seed: int) -> None:
    draw, pages, granted = random.Random(seed), PageAllocator(50), {}
    for _ in range(500):
        if granted and draw.random() < 0.5:
            first = draw.choice(list(granted))
            pages.free(first)
            del granted[first]
        else:
            length = draw.randint(1, 12)
            first = pages.allocate(length)
            if first is not None:
                taken = {p for f, n in granted.items() for p in range(f, f + n)}
                assert not taken & set(range(first, first + length)), "granted twice"
                granted[first] = length
        pages.check_integrity()
        assert pages.num_granted == sum(granted.values())
    assert granted


def test_check_integrity_sees_a_lost_page() -> None:
    pages = PageAllocator(6)
    pages.allocate(2)
    pages._granted.clear()
    with pytest.raises(AssertionError, match="overlap or are lost"):
        pages.check_integrity()
