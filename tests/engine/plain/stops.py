"""Where a stop string cuts a text, in plain Python."""

from collections.abc import Callable, Sequence


def first(text: str, stops: Sequence[str]) -> int | None:
    """The first place at which a stop string begins."""
    places = range(len(text))
    return next((i for i in places if any(text.startswith(stop, i) for stop in stops)), None)


def fewest(tokens: list[int], length: int, text_of: Callable[[list[int]], str]) -> int:
    """The fewest tokens whose text begins with the first `length` characters of the text of all."""
    text = text_of(tokens)[:length]
    return next(n for n in range(len(tokens) + 1) if text_of(tokens[:n]).startswith(text))
