"""Which pages belong to whom: integers only, no tensors.

The pages 0 .. num_pages-1 are cut into runs, and each page is in exactly one of them at any time:

    | granted run | free run | granted run | granted run |      free run       |
      owned by one sequence,   from admission to retirement    never two in a row

A canvas's length is known when its sequence is admitted, so a sequence is granted one contiguous
run and never more; whoever was granted a run frees it, whole, once. Free neighbours are merged at
once.
"""

from bisect import insort


class PageAllocator:
    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._free: list[tuple[int, int]] = [(0, num_pages)]
        self._granted: dict[int, int] = {}

    @property
    def num_granted(self) -> int:
        return sum(self._granted.values())

    def allocate(self, num_pages: int) -> int | None:
        """The first page of a run of `num_pages`, or None if no free run is that long now."""
        assert num_pages > 0, "a run has at least one page"
        for i, (first, length) in enumerate(self._free):
            if length >= num_pages:
                rest = (first + num_pages, length - num_pages)
                self._free[i : i + 1] = [rest] if rest[1] else []
                self._granted[first] = num_pages
                return first
        return None

    def free(self, first: int) -> None:
        """Give back the run that `allocate` answered with `first`."""
        assert first in self._granted, f"page {first} begins no granted run: freed twice?"
        insort(self._free, (first, self._granted.pop(first)))
        merged: list[tuple[int, int]] = []
        for start, length in self._free:
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((start, length))
        self._free = merged

    def check_integrity(self) -> None:
        """Every page is in exactly one run, and no two free runs touch."""
        runs = sorted([*self._free, *self._granted.items()])
        ends = [0, *(first + length for first, length in runs)]
        starts = [*(first for first, _ in runs), self.num_pages]
        assert starts == ends, f"pages overlap or are lost: runs {runs} of {self.num_pages} pages"
        free_ends = {first + length for first, length in self._free}
        assert not free_ends & {first for first, _ in self._free}, f"unmerged: {self._free}"
