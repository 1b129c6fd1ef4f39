"""Writes docs/combinations.md: `python -m tests.numerics.write_combinations`."""

from pathlib import Path

from tests.numerics.combinations import listing
from tests.tiny import tiny_llada2_model, tiny_model

FILE = Path(__file__).parent.parent.parent / "docs" / "combinations.md"


def table() -> str:
    models = {"Bidirectional": tiny_model().config, "Block-causal": tiny_llada2_model().config}
    return listing(models)


if __name__ == "__main__":
    FILE.write_text(table())
