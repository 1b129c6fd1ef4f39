"""The scores of a run's prompts: from scores.parquet, each column that holds a value of a row.

`passed` is the score that every task has; a task may add others (further rules for the same
answers). A prompt's value is the mean over its samples. Failed rows have no answer, so they count
as the scorer has counted them: as wrong.
"""

from collections import defaultdict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from pipeline.report.scores import Scores
from pipeline.run_folder.files import open_parquet
from pipeline.run_folder.layout import RunFolder

NO_SCORES = ("row_id", "sample_index", "duration_s")
PASSED = "passed"

Values = dict[str, float]
"""row_id -> the mean over its samples."""


def read_quality(folder: RunFolder, scores: Scores | None) -> dict[str, Values]:
    """Score -> the values of the scored prompts, `passed` first; empty for a run without scores.

    Raises:
        OSError, pa.ArrowException, KeyError: scores.parquet is missing or damaged.
    """
    if scores is None:
        return {}
    table = open_parquet(folder.scores_file).read()
    ids = table["row_id"].to_pylist()
    known = {PASSED, *scores.metrics} if scores.metrics else set(table.schema.names)
    names = sorted((name for name in known if _is_score(table, name)), key=_passed)
    return {name: _by_prompt(ids, table[name]) for name in names}


def _is_score(table: pa.Table, name: str) -> bool:
    """Truths, and numbers from 0 to 1; other numbers, such as weights, are no scores."""
    if name not in table.schema.names:
        return False
    kind = table.schema.field(name).type
    if name in NO_SCORES or not (pt.is_boolean(kind) or pt.is_floating(kind)):
        return False
    ends = pc.min_max(table[name]).as_py()
    return ends["min"] is not None and ends["min"] >= 0 and ends["max"] <= 1


def _passed(name: str) -> tuple[bool, str]:
    return name != PASSED, name


def _by_prompt(ids: list[str], column: pa.ChunkedArray) -> Values:
    """A null says that the score does not apply to the row."""
    sums: dict[str, list[float]] = defaultdict(list)
    for row_id, value in zip(ids, column.to_pylist(), strict=True):
        if value is not None:
            sums[row_id].append(float(value))
    return {row_id: sum(values) / len(values) for row_id, values in sums.items()}
