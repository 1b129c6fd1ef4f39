"""The engine's own settings; decoding strategy and cache policy bring theirs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How sequences are cut into blocks, and how many live at once.

    Raises:
        ValueError: a field out of range.
    """

    block_length: int = 32
    """Positions denoised together. The last block of a generation region may be shorter."""
    stop_at_eos: bool = True
    """End a sequence once an EOS is committed and nothing before it is masked."""
    max_sequences: int = 32
    """Sequences alive at once; more share one forward, and need more memory."""
    cache_tokens: int = 16384
    """Canvas positions that K and V are kept for, over all live sequences."""
    page_size: int = 16
    """Canvas positions of one page; a canvas is granted whole pages."""

    def __post_init__(self) -> None:
        for name in ("block_length", "max_sequences", "cache_tokens", "page_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"engine.{name}={getattr(self, name)}: give at least 1")
        if self.cache_tokens < self.page_size:
            raise ValueError(
                f"engine.cache_tokens={self.cache_tokens} is less than one page "
                f"(engine.page_size={self.page_size}): raise it to the longest canvas at least"
            )

    @property
    def num_pages(self) -> int:
        return self.cache_tokens // self.page_size

    def pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.page_size)
