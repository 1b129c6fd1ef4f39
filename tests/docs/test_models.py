"""The table of docs/models.md agrees with the YAML files and the model families."""

from pathlib import Path

import pytest

from engine.legal import block_length_of
from engine.model.families import config_of
from pipeline.config.job import as_dict
from pipeline.launch import options
from tests.launched import composed
from tests.published_configs import CONFIGS, LAYOUT_OF

PAGE = Path(__file__).parent.parent.parent / "docs" / "models.md"
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in PAGE.read_text().split("\n\n")[2].splitlines()[2:]
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
}


def test_every_published_model_has_a_row_and_a_layout() -> None:
    names = [name for name in options("model") if not name.startswith("demo")]
    assert sorted(ROWS) == sorted(LAYOUT_OF) == names


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_table_agrees_with_its_yaml_and_its_family(name: str) -> None:
    config = composed("conf=humaneval", f"model={name}")
    model, job = config_of(CONFIGS[LAYOUT_OF[name]], config.model.path), as_dict(config)
    block_causal = f"block-causal {model.block_length}"
    assert ROWS[name] == [
        config.model.path,
        f"`{model.family}`",
        "bidirectional" if model.block_length is None else block_causal,
        "shifted" if model.is_shifted else "in place",
        str(block_length_of(model, config.engine)),
        f"`{job['cache']['name']}`",
        f"`{job['decoding']['name']}`",
    ]
