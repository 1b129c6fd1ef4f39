"""The plan depends on input and settings only, and says what is wrong with either."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.reader import PartReader
from pipeline.plan.build import make_plan, pin
from pipeline.plan.run_json import Plan, load
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import job, prompts, write_json_lines, write_parquet
from tests.pipeline.plan.plans import planned


def test_a_plan_is_the_same_each_time_and_after_json(
    checkpoint: Path, data: list[Path], tmp_path: Path
) -> None:
    config = job(checkpoint, data, tmp_path / "run", data__limit=12)
    plan = planned(config)
    assert plan == planned(config)
    assert Plan.from_json(plan.to_json()) == plan
    assert (plan.num_rows, len(plan.parts), plan.prompt_columns) == (12, 4, ["prompt"])
    assert plan.carried == ["task_id", "prompt", "tags", "about"]


def test_run_json_has_fields_for_human_readers(
    checkpoint: Path, data: list[Path], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.make()
    pin(planned(job(checkpoint, data, folder.path)), folder)
    written = json.loads(folder.plan_file.read_text())
    assert (written["num_rows"], written["num_outcomes"]) == (15, 15)
    assert written["parts"][0] == [0, 0, 4, 4, 4]
    assert written["output_columns"]["token_ids"].startswith("list<")
    assert "torch" in written["versions"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"parts": 3}'])
def test_a_broken_run_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json: not a plan of this version"):
        load(RunFolder(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt__column": "question"}, r"prompt\.column='question'.*task_id, prompt"),
        ({"data__carry": ["task_id", "nope"]}, r"data\.carry: nope.*task_id, prompt"),
    ],
)
def test_a_missing_column_is_refused_and_the_message_lists_the_existing_ones(
    checkpoint: Path, data: list[Path], tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        planned(job(checkpoint, data, tmp_path / "run", **changes))


def test_no_prompt_column_at_all_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", [{"id": 1, "q": "x"}])
    with pytest.raises(ValueError, match=r"(?s)'prompt'.*'messages'.*id, q"):
        planned(job(checkpoint, data, tmp_path / "run"))


def test_a_carried_column_that_collides_is_refused_with_both_names(
    checkpoint: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": "x", "text": "y", "error": 1}]
    data = write_parquet(tmp_path / "in.parquet", rows)
    with pytest.raises(ValueError, match=r"input's 'text', 'error' would collide with .*'text'"):
        planned(job(checkpoint, data, tmp_path / "run"))
    assert planned(job(checkpoint, data, tmp_path / "run", data__carry=[])).carried == []


def test_input_without_rows_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    empty = tmp_path / "in.parquet"
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), empty)
    with pytest.raises(ValueError, match="no rows in 1 files; name files with at least one row"):
        planned(job(checkpoint, empty, tmp_path / "run"))


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff", "[]"])
def test_json_lines_without_rows_are_refused(checkpoint: Path, tmp_path: Path, text: str) -> None:
    empty = tmp_path / "in.jsonl"
    empty.write_text(text)
    with pytest.raises(ValueError, match="no rows in 1 files; name files with at least one row"):
        planned(job(checkpoint, empty, tmp_path / "run"))


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"output=.*file/run: cannot be written"):
        RunFolder(tmp_path / "file" / "run").make()


def test_a_template_around_messages_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}]
    data = write_json_lines(tmp_path / "in.jsonl", [{"messages": turns}])
    config = job(checkpoint, data, tmp_path / "run", prompt__template="Say {prompt}")
    with pytest.raises(
        ValueError, match=r"prompt\.template: \{prompt\} not in the data, which has messages"
    ):
        make_plan(config, checkpoint)


ROWS_WITH_SAMPLES = [
    {**row, "num_samples": num} for row, num in zip(prompts(6), (1, 3, None, 0, 2, 5), strict=True)
]
"""Two parts, of 4 and 2 rows. In a job with 2 samples per row they have 1 + 3 + 2 + 1 (0 samples is
an error) and 2 + 5 output rows."""


@pytest.mark.parametrize("name", ["in.parquet", "in.jsonl"])
def test_parts_count_the_samples_of_their_rows(checkpoint: Path, tmp_path: Path, name: str) -> None:
    write = write_parquet if name.endswith("parquet") else write_json_lines
    changes = {"generation__num_samples": 2, "generation__temperature": 0.5}
    config = job(checkpoint, write(tmp_path / name, ROWS_WITH_SAMPLES), tmp_path / "run", **changes)
    plan = planned(config)
    assert [part.num_outcomes for part in plan.parts] == [7, 7]
    assert (plan.num_rows, plan.num_outcomes) == (6, 14)
    assert Plan.from_json(plan.to_json()) == plan
    off = job(checkpoint, tmp_path / name, tmp_path / "run", columns__num_samples=None, **changes)
    assert planned(off).num_outcomes == 12


def test_the_rows_of_an_existing_plan_are_not_counted_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_parquet(tmp_path / "in.parquet", ROWS_WITH_SAMPLES)
    config = job(checkpoint, data, tmp_path / "run", generation__temperature=0.5)
    plan = planned(config)
    reads: list[int] = []
    read = PartReader.rows

    def counted(self: PartReader, file: int, first: int, num_rows: int) -> pa.Table:
        reads.append(num_rows)
        return read(self, file, first, num_rows)

    monkeypatch.setattr(PartReader, "rows", counted)
    assert make_plan(config, checkpoint, plan) == plan
    assert reads == []
    warmer = job(checkpoint, data, tmp_path / "run", generation__temperature=0.6)
    assert make_plan(warmer, checkpoint, plan).parts == plan.parts
    assert reads == [2, len(ROWS_WITH_SAMPLES)], "two are tried, and all of another plan counted"


def test_only_the_override_columns_are_read_to_count_rows(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_parquet(tmp_path / "in.parquet", [{**row, "seed": 1} for row in ROWS_WITH_SAMPLES])
    asked: list[list[str]] = []
    read = pq.ParquetFile.iter_batches

    def watched(self: pq.ParquetFile, size: int, columns: list[str], **others: Any) -> Any:
        asked.append(columns)
        return read(self, size, columns=columns, **others)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    planned(job(checkpoint, data, tmp_path / "run", generation__temperature=0.5))
    assert asked[1:] == [["num_samples", "seed"]], "the first read tries all steps on two rows"


def test_override_columns_are_carried_except_the_seed(checkpoint: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "x", "seed": 1, "temperature": 0.5, "note": "n"}]
    data = write_parquet(tmp_path / "in.parquet", rows)
    plan = planned(job(checkpoint, data, tmp_path / "run"))
    assert plan.carried == ["prompt", "temperature", "note"]
    assert plan.read_schema.names == ["prompt", "temperature", "note", "seed"]
    for changes in ({"columns__seed": None}, {"data__carry": ["seed"]}):
        with pytest.raises(ValueError, match=r"the input's 'seed' would collide"):
            planned(job(checkpoint, data, tmp_path / "run", **changes))


def test_an_override_column_of_text_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", [{"prompt": "x", "temperature": "hot"}])
    with pytest.raises(ValueError, match=r"columns\.temperature='temperature'.*type string"):
        planned(job(checkpoint, data, tmp_path / "run"))


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{meta}", r"column 'meta' is of type struct.*such as \{meta\.title\}"),
        ("{meta.titel}", r"no field 'titel' in 'meta', which has the fields title, tags; the near"),
        ("{meta.tags}", r"'meta\.tags' is of type list"),
        ("{prompt.x}", r"no field 'x' in 'prompt', which is of type string"),
    ],
)
def test_fields_of_structs_in_a_template_are_checked(
    checkpoint: Path, tmp_path: Path, template: str, told: str
) -> None:
    row = {"prompt": "x", "meta": {"title": "t", "tags": ["a"]}}
    data = write_parquet(tmp_path / "in.parquet", [row])
    with pytest.raises(ValueError, match=told):
        planned(job(checkpoint, data, tmp_path / "run", prompt__template=template))
    good = job(checkpoint, data, tmp_path / "run", prompt__template="{meta.title}")
    assert planned(good).prompt_columns == ["meta"]
