"""Token ids in, token ids out: a diffusion engine with iteration-level batching and K/V reuse.

`from engine import LLM` adds text, for notebooks and scripts (engine/llm.py). The engine itself
(engine/engine.py) knows no text, and nothing here knows Parquet, Hydra or the job around it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.llm import LLM as LLM
    from engine.llm import Answer as Answer

__version__ = "0.2.0"
"""The one place for the version: pyproject.toml and the provenance of every run read it."""
__all__ = ["LLM", "Answer", "__version__"]


def __getattr__(name: str) -> Any:
    """LLM and Answer import transformers, which takes seconds: only who names them waits for it."""
    if name not in ("LLM", "Answer"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from engine import llm

    return getattr(llm, name)
