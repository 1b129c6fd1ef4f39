"""What the engine counts: totals since it was made; take differences for rates."""

from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class EngineStats:
    num_iterations: int = 0
    """Batched forwards."""
    num_forwards: dict[str, int] = field(default_factory=dict)
    """Forwards of single sequences, by kind of span: `refresh`, `block`, `commit`, `edit`."""
    num_query_tokens: dict[str, int] = field(default_factory=dict)
    """Query tokens by kind of span."""
    num_prompt_tokens: int = 0
    """Prompt tokens of finished sequences."""
    num_generated_tokens: int = 0
    """Tokens before EOS of finished sequences."""
    num_failed_forwards: int = 0
    """Forwards that found no memory, and were run again in smaller pieces."""
    num_failed_query_tokens: int = 0
    """Query tokens of these, which are in no sequence's account."""
    peak_sequences: int = 0
    peak_pages: int = 0
    iteration_s: float = 0.0
    """Wall seconds inside run_iteration."""
    forward_s: float = 0.0
    """Of these, wall seconds in the model's forward."""
    first_iteration_at: float | None = None
    """time.perf_counter() at the end of the first; until then the engine warms up."""
