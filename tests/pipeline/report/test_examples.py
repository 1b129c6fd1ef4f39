"""The three example rows: which are chosen, and what is shown of them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.report.examples import PROMPT_CHARACTERS, Example, examples
from pipeline.run_folder.layout import RunFolder

Row = dict[str, Any]


def row(i: int, **changes: Any) -> Row:
    return {
        **{"row_id": f"r{i}", "sample_index": 0, "text": f"answer {i}", "error": None},
        **{"finish_reason": "eos", "num_generated_tokens": 2, "prompt": f"question {i}"},
        **changes,
    }


def failed(i: int) -> Row:
    return row(i, text=None, error=f"bad {i}", finish_reason="error", num_generated_tokens=0)


def of(tmp_path: Path, parts: list[list[Row]], columns: list[str] | None = None) -> list[Example]:
    folder = RunFolder(tmp_path)
    folder.make()
    bad = None
    for index, rows in enumerate(parts):
        folder.write_table(folder.data_file(index), pa.Table.from_pylist(rows))
        if bad is None and any(one["error"] for one in rows):
            bad = folder.data_file(index)
    files = [folder.data_file(index) for index in range(len(parts))]
    return examples(files, bad, columns or ["prompt"])


@pytest.mark.parametrize(
    ("parts", "chosen"),
    [
        ([[row(0), row(1), row(2), row(3), row(4)]], ["r0", "r2", "r4"]),
        ([[row(0), row(1)], [row(2), row(3)], [row(4), row(5)]], ["r0", "r2", "r5"]),
        ([[failed(0), row(1)], [row(2), failed(3)], [row(4)]], ["r1", "r2", "r0"]),
        ([[row(0), row(1)], [failed(2), failed(3)], [row(4)]], ["r0", "r2"]),
        ([[row(i) for i in range(200)], [failed(200)]], ["r0", "r200"]),
        ([[failed(0), failed(1)]], ["r0"]),
        ([[row(0)]], ["r0"]),
        ([], []),
    ],
)
def test_which_rows_are_chosen(tmp_path: Path, parts: list[list[Row]], chosen: list[str]) -> None:
    assert [example.row_id for example in of(tmp_path, parts)] == chosen


def test_a_row_is_shown_once_and_long_texts_are_cut(tmp_path: Path) -> None:
    long = "".join(str(i % 10) for i in range(5000))
    (example,) = of(tmp_path, [[row(0, prompt=long, text=long)]])
    assert example.prompt == f"... {long[-PROMPT_CHARACTERS:]}"
    assert example.answer is not None
    assert example.answer.startswith("0123")
    assert example.answer.endswith(" ...")


def test_what_a_prompt_was_made_of(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    (of_turns,) = of(tmp_path, [[row(0, messages=turns)]], ["messages"])
    assert of_turns.prompt == "system: be brief\nuser: hi"
    (of_columns,) = of(tmp_path, [[row(0, title="T", number=3)]], ["title", "number"])
    assert of_columns.prompt == "title: T\nnumber: 3"
    (of_none,) = of(tmp_path, [[row(0)]], ["not carried"])
    assert of_none.prompt is None
