"""The examples of docs/python.md, taken from the page itself, run in their order."""

import re
from pathlib import Path
from typing import Any

import pytest

from engine.model.defaults import PACKAGES

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
README = Path(__file__).parents[2] / "README.md"
PUBLISHED = "GSAI-ML/LLaDA-8B-Instruct"


def examples(page: Path) -> list[str]:
    """With the demo's checkpoint in place of the published one."""
    found = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    return [code.replace(PUBLISHED, str(PACKAGES / "jobs/demo/model")) for code in found]


@pytest.mark.parametrize("page", [PAGE, README], ids=["python.md", "README.md"])
def test_the_examples_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    assert PUBLISHED in page.read_text()
    for code in examples(page):
        exec(code, names)
    said = capsys.readouterr().out
    assert re.match(r"(?s).+ \d+\n", said), "the first example prints a text and its forwards"


def test_the_table_of_answers_has_every_field() -> None:
    from engine import Answer

    fields = {name for name in dir(Answer) if not name.startswith("_")} - {"failed", "request_id"}
    table = PAGE.read_text().split("## Answers")[1].split("\n## ")[0]
    assert (
        set(re.findall(r"`(\w+)`", table)) - {"None", "eos", "length", "stop", "error"} | {"error"}
        == fields
    )
