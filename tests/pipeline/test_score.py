"""Scoring: pass@k computed by hand, code extracted from answers, and small runs end to end."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.parts import Part
from pipeline.run import run as run_job
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.output_rows import output_schema
from pipeline.score import main, score_run
from pipeline.tasks import TASKS
from pipeline.tasks.sandbox import Limits
from tests.checkpoints import job, write_parquet
from tests.pipeline.plan.plans import plan_of

PROMPT = 'def double(x: int) -> int:\n    """Twice x."""\n'
TEST = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-3) == -6\n"
RIGHT, WRONG = "    return x + x\n", "    return x\n"
CARRIED = pa.schema(
    [("task_id", pa.string()), *((n, pa.string()) for n in ("prompt", "entry_point", "test"))]
)


# --- the code in an answer (tests/pipeline/tasks/test_extract.py has all the rest) ---


def test_functions_continues_the_prompt() -> None:
    row = {"prompt": PROMPT, "entry_point": "double", "test": TEST}
    program = TASKS["functions"].program(row, RIGHT)
    assert program == f"{PROMPT}{RIGHT}\n\n{TEST}\n\ncheck(double)\n"


# --- a run folder ---


def output_row(prompt: int, sample: int, text: str | None, error: str | None) -> dict[str, Any]:
    return {
        "row_id": f"a-{prompt}",
        "sample_index": sample,
        "task_id": f"t/{prompt}",
        "prompt": PROMPT,
        "entry_point": "double",
        "test": TEST,
        "text": text,
        "token_ids": [1],
        "finish_reason": "error" if error else "eos",
        "error": error,
        "num_prompt_tokens": 1,
        "num_generated_tokens": 1,
        "num_iterations": 1,
        "num_refreshes": 1,
        "num_query_tokens": 1,
        "mean_confidence": None,
        "seed": 0,
    }


PARTS = [
    [output_row(0, 0, RIGHT, None), output_row(0, 1, WRONG, None)],
    [output_row(1, 0, None, "prompt: empty; fix it"), output_row(1, 1, "    while True: 0", None)],
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "part=7"  # a folder of this name must not become a column
    (folder / "data").mkdir(parents=True)
    for index, rows in enumerate(PARTS):
        table = pa.Table.from_pylist(rows, output_schema(CARRIED))
        pq.write_table(table, folder / "data" / f"part-{index:05d}.parquet")
    plan = plan_of([Part(index, 0, index, 1, 1, 2) for index in range(2)])
    (folder / "run.json").write_text(plan.to_json())
    (folder / "config.yaml").write_text("name: demo\ntask: functions\n")
    return folder


SHORT = Limits(timeout_s=100.0, cpu_s=1)
"""An endless loop is stopped soon, and no other program by a machine that is busy."""


def test_a_run_is_scored(run: Path) -> None:
    summary = score_run(run, limits=SHORT)
    assert (summary.task, summary.num_prompts, summary.num_rows) == ("functions", 2, 4)
    assert summary.num_passed == 1
    assert summary.pass_at == {1: 0.25, 2: 0.5}
    # By hand: the two prompts have 1/2 and 0; 1 and 0.
    assert summary.stderr == {"pass@1": 0.25, "pass@2": 0.5}
    assert summary.reasons == {
        "passed": 1,
        "failed: AssertionError": 1,
        "no generation": 1,
        "timeout": 1,
    }
    table = pq.read_table(run / "scores.parquet", partitioning=None)
    columns = ["row_id", "sample_index", "passed", "reason", "duration_s"]
    assert table.column_names == columns
    rows = [(r["row_id"], r["sample_index"], r["passed"], r["reason"]) for r in table.to_pylist()]
    assert rows == [
        ("a-0", 0, True, "passed"),
        ("a-0", 1, False, "failed: AssertionError"),
        ("a-1", 0, False, "no generation: prompt: empty; fix it"),
        ("a-1", 1, False, "timeout"),
    ]
    saved = json.loads((run / "scores.json").read_text())
    assert saved["pass_at"] == {"1": 0.25, "2": 0.5}
    assert list((run / "tmp").iterdir()) == []
    assert not (run / "summary.json").exists(), "the job writes it when it ends"
    assert not (run / "README.md").exists()
    report = (run / "report.html").read_text()
    assert "<b>0.2500 ± 0.2500</b><span>pass@1</span>" in report
    assert "failed: AssertionError" in report
    assert "task functions" in report


def test_a_run_whose_parts_were_joined_is_whole(run: Path) -> None:
    """run.json has the parts as they were cut, pace.json says how they were joined."""
    plan = plan_of([Part(index, 0, index, 1, 1, 2) for index in range(5)])
    (run / "run.json").write_text(replace(plan, num_first=1).to_json())
    (run / "pace.json").write_text('{"num_joined": 4}')
    assert score_run(run, limits=SHORT).missing_parts == 0


def test_prompts_may_have_different_numbers_of_samples(run: Path) -> None:
    """By hand: 1 of 3 and 2 of 2 samples pass. The third input row is invalid: its only output row
    is an error, which does not limit k."""
    texts = [[WRONG, RIGHT, WRONG], [RIGHT, RIGHT]]
    rows = [
        output_row(i, j, text, None) for i, row in enumerate(texts) for j, text in enumerate(row)
    ]
    rows.append(output_row(2, 0, None, "num_samples=0: give a whole number"))
    (run / "data" / "part-00001.parquet").unlink()
    table = pa.Table.from_pylist(rows, output_schema(CARRIED))
    pq.write_table(table, run / "data" / "part-00000.parquet")
    (run / "run.json").write_text(plan_of([Part(0, 0, 0, 3, 3, 6)]).to_json())
    summary = score_run(run, limits=SHORT)
    assert (summary.num_prompts, summary.num_rows, summary.num_passed) == (3, 6, 3)
    assert summary.pass_at == {
        1: pytest.approx((1 / 3 + 1 + 0) / 3),
        2: pytest.approx((2 / 3 + 1 + 0) / 3),
    }
    assert "k=3: pass@k needs k samples of every prompt, and the fewest is 2" in refused(
        [str(run), "--k", "3"]
    )


def test_a_run_of_errors_only_passes_nothing(run: Path) -> None:
    (run / "data" / "part-00000.parquet").unlink()
    table = pa.Table.from_pylist([PARTS[1][0]], output_schema(CARRIED))
    pq.write_table(table, run / "data" / "part-00001.parquet")
    assert score_run(run, is_partial=True).pass_at == {1: 0.0}


def test_scoring_again_replaces_the_scores(run: Path) -> None:
    score_run(run, limits=SHORT, ks=[1])
    assert score_run(run, limits=SHORT, ks=[2]).pass_at == {2: 0.5}
    assert json.loads((run / "scores.json").read_text())["pass_at"] == {"2": 0.5}


def finished(tmp_path: Path, checkpoint: Path, **changes: Any) -> RunFolder:
    """A run of four prompts, one of them null, by the stand-in."""
    rows = [
        {
            "task_id": f"t/{i}",
            "prompt": PROMPT if i else None,
            "entry_point": "double",
            "test": TEST,
        }
        for i in range(4)
    ]
    data, output = write_parquet(tmp_path / "in.parquet", rows), tmp_path / "run"
    changes = {"generation__max_new_tokens": 40, "stand_in": True, **changes}
    run_job(job(checkpoint, data, output, task="functions", **changes), 0)
    return RunFolder(output)


def test_scoring_updates_summary_card_and_report(tmp_path: Path, checkpoint: Path) -> None:
    folder = finished(tmp_path, checkpoint)
    before = json.loads(folder.summary_file.read_text())
    front = folder.card_file.read_text().split("---\n")[1]
    scores = score_run(folder.path, limits=SHORT)
    assert scores.num_passed == 0
    after = json.loads(folder.summary_file.read_text())
    told = after["score"]
    assert (told["task"], told["pass_at"], told["num_rows"]) == ("functions", {"1": 0.0}, 4)
    assert told["reasons"]["no generation"] == 1
    assert {**after, "score": None} == before, "nothing else changes"
    card = folder.card_file.read_text()
    assert "- pass@1: 0.0000 ± 0.0000\n- passed: 0 of 4, task functions\n" in card
    assert "no generation 1" in card
    assert card.split("---\n")[1] == front, "the rows are the same, so is their identity"
    assert "<b>0.0000 ± 0.0000</b><span>pass@1</span>" in folder.report_file.read_text()


def test_scores_of_former_rows_are_said_to_be_out_of_date(tmp_path: Path, checkpoint: Path) -> None:
    folder = finished(tmp_path, checkpoint)
    score_run(folder.path, limits=SHORT)
    finished(tmp_path, checkpoint, retry_failed=True)
    assert json.loads(folder.summary_file.read_text())["score"] is None
    assert "pass@1" not in folder.card_file.read_text()
    assert "out of date" in folder.report_file.read_text()
    score_run(folder.path, limits=SHORT)
    assert json.loads(folder.summary_file.read_text())["score"] is not None
    assert "out of date" not in folder.report_file.read_text()


def test_the_command_prints_a_table_and_ends_with_0(run: Path) -> None:
    (run / "data" / "part-00001.parquet").unlink()
    table = pa.Table.from_pylist(
        [PARTS[1][0], output_row(1, 1, WRONG, None)], output_schema(CARRIED)
    )
    pq.write_table(table, run / "data" / "part-00001.parquet")
    command = [sys.executable, "-m", "pipeline.score", str(run), "--timeout-s", "60", "--k", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 generations for 2 prompts" in done.stdout
    assert "pass@1    0.2500 ± 0.2500" in done.stdout
    assert "no generation" in done.stdout


def refused(argv: list[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert isinstance(caught.value.code, str), "exit with a message means exit code 1"
    return caught.value.code


def test_a_missing_run_is_refused(tmp_path: Path) -> None:
    assert "has no run.json" in refused([str(tmp_path / "nowhere")])


@pytest.mark.parametrize("left", [0, 4, 200])
def test_a_part_that_was_cut_short_is_named(run: Path, left: int) -> None:
    part = run / "data" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:left])
    assert "part-00001.parquet: is not a complete Parquet file; start the job" in refused(
        [str(run)]
    )


def test_an_unfinished_run_is_scored_only_with_partial(run: Path) -> None:
    (run / "data" / "part-00001.parquet").unlink()
    message = refused([str(run)])
    assert "1 of 2 parts are missing" in message
    assert "--partial" in message
    summary = score_run(run, is_partial=True)
    assert (summary.num_rows, summary.missing_parts) == (2, 1)


def test_a_run_without_any_part_is_refused(run: Path) -> None:
    for file in (run / "data").iterdir():
        file.unlink()
    assert "no part is done" in refused([str(run), "--partial"])


def test_a_missing_column_is_refused(run: Path) -> None:
    for file in (run / "data").iterdir():
        pq.write_table(pq.ParquetFile(file).read().drop_columns(["test", "entry_point"]), file)
    message = refused([str(run)])
    assert "needs the columns entry_point, test" in message
    assert "data.carry" in message


def test_the_task_is_that_of_the_job_or_of_the_option(run: Path) -> None:
    assert "task='nonsense': unknown; choose one of functions, humaneval" in refused(
        [str(run), "--task", "nonsense"]
    )
    (run / "config.yaml").write_text("name: demo\ntask: null\n")
    assert "names no task" in refused([str(run)])
    assert score_run(run, task="humaneval", limits=SHORT).num_passed == 1


@pytest.mark.parametrize("k", ["0", "3"])
def test_k_beyond_the_samples_is_refused(run: Path, k: str) -> None:
    assert "the fewest is 2; choose 1 to 2" in refused([str(run), "--k", k])


def test_options_out_of_range_are_refused(run: Path) -> None:
    assert "workers=0" in refused([str(run), "--workers", "0"])
    assert "timeout_s=-1.0" in refused([str(run), "--timeout-s", "-1"])


def test_a_row_without_a_test_fails_alone(run: Path) -> None:
    rows = [PARTS[0][0], {**PARTS[0][1], "test": None}]
    table = pa.Table.from_pylist(rows, output_schema(CARRIED))
    pq.write_table(table, run / "data" / "part-00000.parquet")
    summary = score_run(run, limits=SHORT)
    assert summary.reasons["no test"] == 1
    assert summary.num_passed == 1
