"""Two runs of the demo model with different thresholds, against figures computed by hand."""

import json
import math
from pathlib import Path
from statistics import fmean, stdev

import pyarrow.parquet as pq
import pytest

from pipeline.compare.runs import read_runs
from pipeline.compare.tables import Comparison, compare
from pipeline.run import run
from pipeline.score import score_run
from tests.checkpoints import output_rows
from tests.launched import composed

THRESHOLDS = (0.9, 0.2)
NUM_ROWS = 16


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp("demo") / f"at-{threshold}" for threshold in THRESHOLDS]
    for number, (folder, threshold) in enumerate(zip(folders, THRESHOLDS, strict=True)):
        arguments = [f"decoding.threshold={threshold}", f"data.limit={NUM_ROWS}"]
        run(composed("conf=demo", "threads=1", *arguments, f"output={folder}"), number)
        score_run(folder)
    return folders


@pytest.fixture(scope="module")
def made(runs: list[Path]) -> Comparison:
    return compare(read_runs(list(map(str, runs))))


def row(made: Comparison, table: str, name: str) -> list[str]:
    (found,) = [its for its in made.tables if its.title == table]
    (cells,) = [cells for cells in found.rows if cells[0].strip() == name]
    return cells[1:]


def test_only_the_threshold_differs(made: Comparison) -> None:
    (settings,) = [table for table in made.tables if table.title == "Settings that differ"]
    assert settings.rows == [["decoding.threshold", "0.9", "0.2"]]
    assert made.notes == []


def test_quality_by_hand(made: Comparison, runs: list[Path]) -> None:
    passed = [
        {its["row_id"]: its["passed"] for its in pq.read_table(run / "scores.parquet").to_pylist()}
        for run in runs
    ]
    ids = list(passed[0])
    assert len(ids) == NUM_ROWS
    first, second = ([float(its[row_id]) for row_id in ids] for its in passed)
    assert sum(first) > sum(second), "at 0.2 the demo model makes mistakes"

    def cell(values: list[float], form: str) -> str:
        return f"{fmean(values):{form}} ± {stdev(values) / math.sqrt(NUM_ROWS):.4f}"

    assert row(made, "Quality", "passed") == [cell(first, ".4f"), cell(second, ".4f")]
    differences = [b - a for a, b in zip(first, second, strict=True)]
    assert row(made, "Quality", "difference to [1]") == ["", cell(differences, "+.4f")]
    better, worse = differences.count(1.0), differences.count(-1.0)
    assert row(made, "Quality", "prompts better, worse") == ["", f"{better}, {worse} of 16"]
    ways = sum(math.comb(better + worse, k) for k in range(min(better, worse) + 1))
    p = min(1.0, 2 * ways / 2 ** (better + worse))
    assert row(made, "Quality", "exact McNemar test, p") == ["", f"{p:.4f}"]


def test_speed_by_hand(made: Comparison, runs: list[Path]) -> None:
    tpf, cost = [], []
    for folder in runs:
        rows = output_rows(folder)
        sums = {
            name: sum(its[name] for its in rows)
            for name in ("num_generated_tokens", "num_iterations", "num_query_tokens")
        }
        tpf.append(sums["num_generated_tokens"] / sums["num_iterations"])
        cost.append(sums["num_query_tokens"] / sums["num_generated_tokens"])
    for name, values in (("tokens per forward", tpf), ("query tokens per token", cost)):
        first, second = values
        assert row(made, "Speed", name) == [
            f"{first:.2f}",
            f"{second:.2f} (x{second / first:.2f})",
        ]
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in runs]
    first, second = (its["num_generated_tokens"] / its["wall_s"] for its in summaries)
    assert [cell.split()[0] for cell in row(made, "Speed", "tokens/s over the wall time")] == [
        f"{its:,.0f}" if its >= 100 else f"{its:.2f}" for its in (first, second)
    ]


def test_answers_by_hand(made: Comparison, runs: list[Path]) -> None:
    tokens = [{its["row_id"]: its["token_ids"] for its in output_rows(run)} for run in runs]
    same = sum(tokens[0][row_id] == tokens[1][row_id] for row_id in tokens[0])
    assert 0 < same < NUM_ROWS
    assert row(made, "Answers", "same tokens as [1]") == ["", f"{same / 16:.1%} of 16"]
