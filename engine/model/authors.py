"""What a family's authors do in their own generation code, where codes differ."""

from dataclasses import dataclass
from typing import Literal, get_args

Opening = Literal["free", "first", "alone"]
OPENINGS: tuple[Opening, ...] = get_args(Opening)
Confidence = Literal["raw", "filtered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorsRules:
    """The rules of a family's authors: what a setting takes that the user leaves out (null)."""

    opening: Opening = "free"
    """What commits in the forward that opens a block (EngineConfig.opening)."""
    confidence: Confidence = "raw"
    """The probability that a drawn token's confidence is: `raw`, at temperature 1 over all words;
    `filtered`, after temperature, top_k and top_p, as it was drawn."""
    filters_top_p_first: bool = False
    """Whether top_p is applied before top_k."""
    filters_greedy: bool = False
    """Whether top_k and top_p also apply at temperature 0, where they change confidences alone."""
