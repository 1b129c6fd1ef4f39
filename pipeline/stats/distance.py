"""How many tokens must be inserted, removed or replaced to make one sequence of another?"""

from collections.abc import Hashable, Sequence


def edit_distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """The Levenshtein distance.

    A column of the usual table is kept as two integers, a bit for each element of `first`: where
    the value grows by one from the row above, and where it falls by one (Myers, JACM 46, 1999, in
    the form of Hyyro, 2003). So a column costs a few operations on integers, however long `first`
    is.
    """
    if not first:
        return len(second)
    places: dict[Hashable, int] = {}
    for place, item in enumerate(first):
        places[item] = places.get(item, 0) | 1 << place
    whole, last = (1 << len(first)) - 1, 1 << len(first) - 1
    grows, falls, distance = whole, 0, len(first)
    for item in second:
        equal = places.get(item, 0)
        diagonal = (((equal & grows) + grows) ^ grows) | equal | falls
        rises = falls | (whole & ~(diagonal | grows))
        sinks = grows & diagonal
        distance += (rises & last > 0) - (sinks & last > 0)
        rises = (rises << 1 | 1) & whole
        sinks = sinks << 1 & whole
        grows = sinks | (whole & ~(diagonal | rises))
        falls = rises & diagonal
    return distance


def relative_distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """The edit distance as a share of the longer sequence: 0 for equal ones, 1 for sequences that
    share nothing."""
    longer = max(len(first), len(second))
    return edit_distance(first, second) / longer if longer else 0.0
