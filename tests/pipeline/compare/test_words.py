"""Runs that cannot be compared as they are: each has its word, and the figures are still right."""

from collections.abc import Callable, Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.compare.__main__ import main
from pipeline.compare.runs import read_runs
from pipeline.compare.tables import Comparison, compare
from pipeline.report.scores import Scores
from pipeline.run import run
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.starts import identity
from tests.checkpoints import job, output_rows, prompts, write_parquet
from tests.pipeline.stats.timelines import Page

Make = Callable[..., Path]


@pytest.fixture
def make(checkpoint: Path, tmp_path: Path) -> Make:
    """Makes a finished stand-in run of 8 rows, called NAME."""
    rows = prompts(8)
    data = write_parquet(tmp_path / "in.parquet", rows)

    def made(name: str, data: Path = data, **changes: object) -> Path:
        number = len(list(tmp_path.iterdir()))
        run(job(checkpoint, data, tmp_path / name, stand_in=True, **changes), number)
        return tmp_path / name

    return made


def score(
    folder: Path, wrong: Collection[str] = (), task: str = "functions", **more: float
) -> None:
    """Write scores: answers to the task_ids in `wrong` and failed rows are wrong."""
    scores = [
        {
            "row_id": row["row_id"],
            "sample_index": row["sample_index"],
            "passed": row["error"] is None
            and row["task_id"] not in wrong
            and f"{row['task_id']}#{row['sample_index']}" not in wrong,
            "reason": "",
            "duration_s": 1.0,
            **more,
        }
        for row in output_rows(folder)
    ]
    pq.write_table(pa.Table.from_pylist(scores), folder / "scores.parquet")
    summary = Scores(
        task=task,
        num_prompts=len({its["row_id"] for its in scores}),
        num_rows=len(scores),
        num_passed=sum(its["passed"] for its in scores),
        pass_at={1: 0.0},
        reasons={},
        missing_parts=0,
        has_network=False,
        duration_s=1.0,
        identity=identity(RunFolder(folder)),
    )
    (folder / "scores.json").write_text(summary.to_json())


def compared(*folders: Path) -> Comparison:
    return compare(read_runs(list(map(str, folders))))


def cells(made: Comparison, table: str, name: str) -> list[str]:
    (rows,) = [its.rows for its in made.tables if its.title == table]
    (found,) = [row for row in rows if row[0].strip() == name]
    return found[1:]


def said(made: Comparison, *words: str) -> bool:
    return any(all(word in note for word in words) for note in made.notes)


def test_every_run_says_that_no_model_ran(make: Make) -> None:
    made = compared(make("a"), make("b"))
    assert said(made, "[1]", "stand-in")
    assert said(made, "[2]", "stand-in")


def test_other_rows(make: Make) -> None:
    a, b = make("a"), make("b", data__limit=4)
    score(a, {"t/0", "t/7"})
    score(b, {"t/1"})
    made = compared(a, b)
    assert said(made, "4 prompts are in both, 4 only in [1], 0 only in [2]")
    # Of t/0 to t/3: a is wrong in the first, b in the second.
    assert cells(made, "Quality", "passed")[0].startswith("0.7500")
    assert cells(made, "Quality", "difference to [1]")[1].startswith("+0.0000 ± 0.4082")
    assert cells(made, "Quality", "prompts better, worse") == ["", "1, 1 of 4"]
    assert ["data.limit", "null", "4"] in made.tables[0].rows


def test_other_data_with_the_same_ids(make: Make, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    rows = prompts(8)
    for row in rows[:3]:
        row["prompt"] = "quite another"
    a = make("a")
    b = make("b", data=write_parquet(other / "in.parquet", rows))
    score(a)
    score(b, {"t/5"})
    made = compared(a, b)
    assert said(made, "other input files", "5 of 8 rows with the same id have equal prompts")
    assert cells(made, "Quality", "prompts better, worse") == ["", "0, 1 of 5"]
    assert any(row[0] == "input files" for row in made.tables[0].rows)
    without = make("c", data=other / "in.parquet", data__carry=["task_id"])
    score(without)
    made = compared(a, without)
    assert said(made, "does not hold the columns of the prompts", "nothing is paired")
    assert "difference to [1]" not in {row[0].strip() for t in made.tables for row in t.rows}


def test_other_prompts_of_the_same_rows(make: Make) -> None:
    made = compared(make("a"), make("b", prompt__template="Say: {prompt}"))
    assert said(made, "make their prompts differently (prompt.template)")
    assert "prompt.template" in {row[0] for row in made.tables[0].rows}


def test_ids_of_another_kind(make: Make) -> None:
    made = compared(make("a"), make("b", data__id_column="task_id"))
    assert said(made, "no row_id in common", "data.id_column is None and task_id")


def test_an_unfinished_run_without_scores(make: Make) -> None:
    a, b = make("a", task="functions"), make("b", task="functions")
    score(a)
    (b / "data" / "part-00001.parquet").unlink()
    made = compared(a, b)
    assert said(made, "[2] is unfinished", "1 of 2 parts")
    assert said(made, "[2] is not scored: python -m pipeline.score")
    assert cells(made, "Quality", "passed") == ["1.0000 ± 0.0000", "-"]


def test_scores_of_other_rows(make: Make) -> None:
    a, b = make("a"), make("b")
    score(a)
    score(b)
    file = b / "scores.json"
    file.write_text(file.read_text().replace('"identity": "', '"identity": "0'))
    made = compared(a, b)
    assert said(made, "[2] has scores of other rows")
    assert cells(made, "Quality", "passed")[1] == "-"


def test_several_samples(make: Make) -> None:
    sampled = {"generation__num_samples": 2, "generation__temperature": 1.0}
    a, b = make("a", **sampled), make("b", **sampled)
    score(a, {"t/0", "t/1#0"})
    score(b, {"t/2#1", "t/3#0", "t/3#1"})
    made = compared(a, b)
    assert said(made, "up to 2, 2 samples per prompt", "sign test")
    # By prompt: t/0 0 -> 1, t/1 1/2 -> 1, t/2 1 -> 1/2, t/3 1 -> 0, four equal: their mean is 0,
    # their variance (1 + 1/4 + 1/4 + 1) / 7.
    assert cells(made, "Quality", "passed")[0].startswith("0.8125 ")
    assert cells(made, "Quality", "difference to [1]")[1] == "+0.0000 ± 0.2113"
    assert cells(made, "Quality", "prompts better, worse")[1] == "2, 2 of 8"
    assert cells(made, "Quality", "exact sign test, p")[1] == "1.0000"


def test_failed_rows(make: Make, tmp_path: Path) -> None:
    rows = prompts(8)
    rows[2]["prompt"] = ""
    folder = tmp_path / "failing"
    folder.mkdir()
    data = write_parquet(folder / "in.parquet", rows)
    a, b = make("a", data=data), make("b", data=data)
    score(a)
    score(b)
    made = compared(a, b)
    assert said(made, "[1] has 1 failed rows of 8: they count as wrong")
    assert cells(made, "Quality", "passed")[0].startswith("0.8750")


def test_other_tasks(make: Make) -> None:
    a, b = make("a"), make("b")
    score(a)
    score(b, task="humaneval")
    made = compared(a, b)
    assert said(made, "different tasks", "functions", "humaneval")
    assert "Quality" not in [table.title for table in made.tables]


def test_further_scores_of_a_task(make: Make) -> None:
    a, b = make("a"), make("b")
    score(a, strict=True, weight=3.0)
    score(b, strict=False, weight=3.0)
    made = compared(a, b)
    assert cells(made, "Quality", "strict") == ["1.0000 ± 0.0000", "0.0000 ± 0.0000"]
    (rows,) = [its.rows for its in made.tables if its.title == "Quality"]
    assert rows[0][0] == "passed"
    assert "weight" not in {row[0] for row in rows}


def test_what_is_written(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = make("<b>a|"), make("b", decoding={"name": "factor"})
    score(a)
    score(b, {"t/1", "t/2"})
    main([str(a), str(b)])
    lines = capsys.readouterr().out.splitlines()
    assert ["decoding.factor", "-", "1.0"] in [line.split() for line in lines]
    html = (tmp_path / "<b>a|_vs_b.html").read_text()
    page = Page(html)
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert "<b>a|" in page.text
    assert "prompts better, worse" in page.text
    text = (tmp_path / "<b>a|_vs_b.md").read_text()
    assert r"|  | \[1\] \<b\>a\| | \[2\] b |" in text
    assert "| decoding.factor | - | 1.0 |" in text
    main([str(a), str(b), "--output", str(tmp_path / "mine")])
    assert (tmp_path / "mine.md").read_text() == text


@pytest.mark.parametrize(
    ("names", "why"),
    [(["a"], "needs two runs"), (["a", "a"], "given twice"), (["a", "in"], "no run.json")],
)
def test_what_is_refused(
    names: list[str], why: str, make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("a")
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / name) for name in names])
    assert stop.value.code == 2
    assert why in capsys.readouterr().err


def test_a_folder_that_does_not_exist(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(make("a")), str(make("b")), "--output", "/no/such/folder/x"])
    assert "--output /no/such/folder/x: its folder does not exist" in capsys.readouterr().err
