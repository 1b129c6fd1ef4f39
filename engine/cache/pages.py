"""Allocates KV-cache pages to sequences. It handles page numbers only, no tensors.

The pages 0 .. num_pages - 1 are divided into contiguous runs, granted or free. At any time every
page is in exactly one run:

    | granted run | free run | granted run | granted run |      free run       |

A granted run belongs to one sequence, from its admission until it is retired. The length of a
canvas is known at admission, so a sequence is granted exactly one run, and frees all of it once.
Two adjacent free runs are merged at once.
"""

from bisect import insort


class PageAllocator:
    """Grants the first free run that is long enough."""

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._free: list[tuple[int, int]] = [(0, num_pages)]
        self._granted: dict[int, int] = {}
        self.num_granted = 0
        """Pages of all granted runs."""

    def allocate(self, num_pages: int) -> int | None:
        """Grant a run of `num_pages`. Returns its first page, or None if no free run is that
        long."""
        assert num_pages > 0, "a run has at least one page"
        for i, (first, length) in enumerate(self._free):
            if length >= num_pages:
                rest = (first + num_pages, length - num_pages)
                self._free[i : i + 1] = [rest] if rest[1] else []
                self._granted[first] = num_pages
                self.num_granted += num_pages
                return first
        return None

    def free(self, first: int) -> None:
        """Free the granted run that begins with page `first`."""
        assert first in self._granted, f"page {first} begins no granted run: freed twice?"
        num_pages = self._granted.pop(first)
        self.num_granted -= num_pages
        insort(self._free, (first, num_pages))
        merged: list[tuple[int, int]] = []
        for start, length in self._free:
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((start, length))
        self._free = merged

    def check_integrity(self) -> None:
        """Assert that every page is in exactly one run and that no two free runs are adjacent."""
        runs = sorted([*self._free, *self._granted.items()])
        ends = [0, *(first + length for first, length in runs)]
        starts = [*(first for first, _ in runs), self.num_pages]
        assert starts == ends, f"pages overlap or are lost: runs {runs} of {self.num_pages} pages"
        free_ends = {first + length for first, length in self._free}
        assert self.num_granted == sum(self._granted.values()), "granted pages are miscounted"
        assert not free_ends & {first for first, _ in self._free}, f"unmerged: {self._free}"
