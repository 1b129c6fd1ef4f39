"""The plan depends on input and settings only, and a run folder accepts only the run it holds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.model.authors import AuthorsRules
from engine.model.load import read_config
from pipeline.config.job import JobConfig
from pipeline.input.reader import PartReader
from pipeline.plan.build import make_plan, pin
from pipeline.plan.fingerprint import LATER_SETTINGS, check_same, differing
from pipeline.plan.run_json import Plan, load
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import job, prompts, write_checkpoint, write_json_lines, write_parquet


@pytest.fixture
def data(tmp_path: Path) -> list[Path]:
    """Two files, of 10 and 5 rows."""
    return [
        write_parquet(tmp_path / "one.parquet", prompts(10)),
        write_parquet(tmp_path / "two.parquet", prompts(5)),
    ]


def plan_of(config: JobConfig) -> Plan:
    return make_plan(config, Path(config.model.path))


def test_a_plan_is_the_same_each_time_and_after_json(
    checkpoint: Path, data: list[Path], tmp_path: Path
) -> None:
    config = job(checkpoint, data, tmp_path / "run", data__limit=12)
    plan = plan_of(config)
    assert plan == plan_of(config)
    assert Plan.from_json(plan.to_json()) == plan
    assert (plan.num_rows, len(plan.parts), plan.prompt_columns) == (12, 4, ["prompt"])
    assert plan.carried == ["task_id", "prompt", "tags", "about"]


def test_run_json_has_fields_for_human_readers(
    checkpoint: Path, data: list[Path], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.make()
    pin(plan_of(job(checkpoint, data, folder.path)), folder)
    written = json.loads(folder.plan_file.read_text())
    assert (written["num_rows"], written["num_outcomes"]) == (15, 15)
    assert written["parts"][0] == [0, 0, 4, 4, 4]
    assert written["output_columns"]["token_ids"].startswith("list<")
    assert "torch" in written["versions"]


CHANGES = {  # each of them changes the output
    "generation__max_new_tokens": 9,
    "generation__temperature": 0.5,
    "decoding": {"name": "threshold", "threshold": 0.4},
    "cache": {"name": "none"},
    "columns__seed": None,
    "columns__num_samples": None,
    "data__limit": 3,
    "data__part_rows": 5,
    "data__carry": ["task_id"],
    "prompt__system": "be brief",
    "prompt__chat": False,
    "prompt__keep": True,
    "prompt__chat_template": "rag",
    "model__dtype": "bfloat16",
    "engine__block_length": 8,
    "engine__stop_at_eos": False,
    "seed": 1,
}


@pytest.fixture
def pinned(checkpoint: Path, data: list[Path], tmp_path: Path) -> RunFolder:
    """A run folder that holds a plan."""
    folder = RunFolder(tmp_path / "run")
    folder.make()
    pin(plan_of(job(checkpoint, data, folder.path)), folder)
    return folder


@pytest.mark.parametrize("field", CHANGES)
def test_a_field_that_changes_the_rows_is_named_with_both_values(
    pinned: RunFolder, checkpoint: Path, data: list[Path], field: str
) -> None:
    changed = plan_of(job(checkpoint, data, pinned.path, **{field: CHANGES[field]}))
    with pytest.raises(ValueError, match="other settings") as error:
        pin(changed, pinned)
    lines = str(error.value).splitlines()
    assert len(lines) == 3, "the first line, the one field that differs, the remedy"
    assert lines[1].strip().startswith(field.replace("__", "."))
    assert " there, " in lines[1]
    assert "Give another output" in lines[2]


def test_all_fields_that_differ_are_named(
    pinned: RunFolder, checkpoint: Path, data: list[Path]
) -> None:
    changed = job(checkpoint, data, pinned.path, seed=5, generation__max_new_tokens=7)
    with pytest.raises(ValueError, match="seed: 0 there, 5 now") as error:
        pin(plan_of(changed), pinned)
    assert "generation.max_new_tokens: 8 there, 7 now" in str(error.value)


def test_settings_that_do_not_change_the_rows_may_change(
    pinned: RunFolder, checkpoint: Path, data: list[Path]
) -> None:
    changes = {
        "engine__max_sequences": 3,
        "engine__cache_tokens": 999,
        "engine__page_size": 8,
        "engine__tensor_parallel": 2,
        "engine__expert_parallel": True,
        "progress_every_s": 1.0,
        "max_failed_fraction": 0.1,
        "threads": 2,
        "task": "functions",
        "prompt__optional_keys": ["name"],
        "prompt__tools_column": None,
    }
    pin(plan_of(job(checkpoint, data, pinned.path, **changes)), pinned)


def test_changed_input_files_are_refused(
    pinned: RunFolder, checkpoint: Path, data: list[Path]
) -> None:
    write_parquet(data[1], prompts(5, first=1))
    with pytest.raises(ValueError, match=r"input files: .*two \(5 rows"):
        pin(plan_of(job(checkpoint, data, pinned.path)), pinned)


def test_another_model_is_refused(pinned: RunFolder, data: list[Path], tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", seed=7)
    with pytest.raises(ValueError, match=r"model files: .*other"):
        pin(plan_of(job(other, data, pinned.path)), pinned)


def test_moved_files_are_the_same_files(
    pinned: RunFolder, checkpoint: Path, data: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "moved").mkdir()
    moved = [file.rename(tmp_path / "moved" / file.name) for file in data]
    pin(plan_of(job(checkpoint, moved, pinned.path)), pinned)


def test_a_folder_with_parts_but_no_plan_is_refused(
    checkpoint: Path, data: list[Path], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.data_file(0).touch()
    with pytest.raises(ValueError, match=r"no run\.json"):
        pin(plan_of(job(checkpoint, data, folder.path)), folder)


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
        plan_of(job(checkpoint, data, tmp_path / "run", **changes))


def test_no_prompt_column_at_all_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", [{"id": 1, "q": "x"}])
    with pytest.raises(ValueError, match=r"(?s)'prompt'.*'messages'.*id, q"):
        plan_of(job(checkpoint, data, tmp_path / "run"))


def test_a_carried_column_that_collides_is_refused_with_both_names(
    checkpoint: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": "x", "text": "y", "error": 1}]
    data = write_parquet(tmp_path / "in.parquet", rows)
    with pytest.raises(ValueError, match=r"input's 'text', 'error' would collide with .*'text'"):
        plan_of(job(checkpoint, data, tmp_path / "run"))
    assert plan_of(job(checkpoint, data, tmp_path / "run", data__carry=[])).carried == []


def test_input_without_rows_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    empty = tmp_path / "in.parquet"
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), empty)
    with pytest.raises(ValueError, match="no rows in 1 files; name files with at least one row"):
        plan_of(job(checkpoint, empty, tmp_path / "run"))


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff", "[]"])
def test_json_lines_without_rows_are_refused(checkpoint: Path, tmp_path: Path, text: str) -> None:
    empty = tmp_path / "in.jsonl"
    empty.write_text(text)
    with pytest.raises(ValueError, match="no rows in 1 files; name files with at least one row"):
        plan_of(job(checkpoint, empty, tmp_path / "run"))


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
    plan = plan_of(config)
    assert [part.num_outcomes for part in plan.parts] == [7, 7]
    assert (plan.num_rows, plan.num_outcomes) == (6, 14)
    assert Plan.from_json(plan.to_json()) == plan
    off = job(checkpoint, tmp_path / name, tmp_path / "run", columns__num_samples=None, **changes)
    assert plan_of(off).num_outcomes == 12


def test_the_rows_of_an_existing_plan_are_not_counted_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_parquet(tmp_path / "in.parquet", ROWS_WITH_SAMPLES)
    config = job(checkpoint, data, tmp_path / "run", generation__temperature=0.5)
    plan = plan_of(config)
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
    plan_of(job(checkpoint, data, tmp_path / "run", generation__temperature=0.5))
    assert asked[1:] == [["num_samples", "seed"]], "the first read tries all steps on two rows"


def test_override_columns_are_carried_except_the_seed(checkpoint: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "x", "seed": 1, "temperature": 0.5, "note": "n"}]
    data = write_parquet(tmp_path / "in.parquet", rows)
    plan = plan_of(job(checkpoint, data, tmp_path / "run"))
    assert plan.carried == ["prompt", "temperature", "note"]
    assert plan.read_schema.names == ["prompt", "temperature", "note", "seed"]
    for changes in ({"columns__seed": None}, {"data__carry": ["seed"]}):
        with pytest.raises(ValueError, match=r"the input's 'seed' would collide"):
            plan_of(job(checkpoint, data, tmp_path / "run", **changes))


def test_an_override_column_of_text_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", [{"prompt": "x", "temperature": "hot"}])
    with pytest.raises(ValueError, match=r"columns\.temperature='temperature'.*type string"):
        plan_of(job(checkpoint, data, tmp_path / "run"))


def test_prompt_settings_that_change_nothing_are_not_in_the_fingerprint(
    checkpoint: Path, data: list[Path], tmp_path: Path
) -> None:
    """Runs of earlier versions did not know these fields, and go on."""
    plan = plan_of(job(checkpoint, data, tmp_path / "run"))
    new = {"prompt.tools_column", "prompt.keep", "prompt.optional_keys", "chat template file"}
    new |= {f"{section}.{name}" for section in ("generation", "columns") for name in LATER_SETTINGS}
    assert new.isdisjoint(plan.fingerprint)
    old = json.loads(plan.to_json())
    del old["kept_schema"], old["fingerprint"]["prompt.chat_template"]
    del old["fingerprint"]["decoding.suppress_eos"]
    before = Plan.from_json(json.dumps(old))
    again = make_plan(job(checkpoint, data, tmp_path / "run"), checkpoint, before)
    assert again.parts == plan.parts
    assert differing(before.fingerprint, plan.fingerprint) == []


@pytest.mark.parametrize(
    ("decoding", "field", "other"),
    [
        ("factor", "decoding.form", "code"),
        ("entropy_bound", "decoding.counts_own", True),
        ("fixed", "decoding.remainder", "spread"),
        ("threshold", "cache.refresh_every_iterations", 5),
        ("threshold", "decoding.iterations_per_block", 3),
    ],
    ids=str,
)
def test_a_run_begun_before_a_setting_existed_goes_on_without_it(
    checkpoint: Path,
    data: list[Path],
    tmp_path: Path,
    decoding: str,
    field: str,
    other: Any,
) -> None:
    def fields(**changes: Any) -> dict[str, Any]:
        made = job(checkpoint, data, tmp_path / "run", decoding={"name": decoding}, **changes)
        return plan_of(made).fingerprint

    before = {name: value for name, value in fields().items() if name != field}
    assert differing(before, fields()) == []
    assert differing(before, fields(**{field.replace(".", "__"): other})) == [field]


def test_a_run_begun_before_soft_iteration_had_a_scope_goes_on(
    checkpoint: Path, data: list[Path], tmp_path: Path
) -> None:
    def fields(**soft: Any) -> dict[str, Any]:
        made = job(checkpoint, data, tmp_path / "run", engine__soft={"enabled": True, **soft})
        return plan_of(made).fingerprint

    assert "scope" not in fields()["engine.soft"]
    assert differing(fields(), fields(scope="canvas")) == ["engine.soft"]


@pytest.mark.parametrize(("before", "now"), [(0, 0), (1, 0), (4, 3), (9, 8)])
def test_the_warm_up_of_an_earlier_version_goes_on_with_as_many_refreshes(
    checkpoint: Path, data: list[Path], tmp_path: Path, before: int, now: int
) -> None:
    """The present default has one refresh more than the earlier one, so it goes on with neither."""

    def fields(**changes: Any) -> dict[str, Any]:
        made = job(checkpoint, data, tmp_path / "run", cache__name="vicinity", **changes)
        return plan_of(made).fingerprint

    old = fields()
    del old["cache.warmup"]
    old["cache.warmup_iterations"] = before
    assert differing(old, fields(cache__warmup=now)) == []
    assert differing(old, fields()) == ["cache.warmup"]
    with pytest.raises(ValueError, match=rf"cache\.warmup: {now} there, 4 now"):
        check_same(old, fields(), RunFolder(tmp_path / "run"))


def test_a_run_that_did_not_know_a_settings_column_goes_on_without_it(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Whatever the type of the column."""
    for top_k in (3, "three"):
        data = write_parquet(tmp_path / "in.parquet", [{"prompt": "x", "top_k": top_k}])
        config = job(checkpoint, data, tmp_path / "run")
        plan = plan_of(job(checkpoint, data, tmp_path / "run", columns__top_k=None))
        assert "columns.top_k" not in plan.fingerprint
        assert make_plan(config, checkpoint, plan).overrides == {}
        files = [replace(file, stamp=None) for file in plan.files]
        assert make_plan(config, checkpoint, replace(plan, files=files)).overrides == {}
    data = write_parquet(tmp_path / "in.parquet", [{"prompt": "x", "top_k": 3}])
    plan = plan_of(job(checkpoint, data, tmp_path / "run"))
    assert plan.fingerprint["columns.top_k"] == plan.overrides["top_k"] == "top_k"
    off = plan_of(job(checkpoint, data, tmp_path / "run", columns__top_k=None))
    assert differing(plan.fingerprint, off.fingerprint) == ["columns.top_k"]


def test_the_confidence_of_sampled_rows_is_in_the_fingerprint_where_it_is_not_as_it_was(
    checkpoint: Path, data: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def confidence(**generation: Any) -> Any:
        settings = {f"generation__{name}": value for name, value in generation.items()}
        plan = plan_of(job(checkpoint, data, tmp_path / "run", **settings))
        return plan.fingerprint.get("generation.confidence")

    assert confidence(temperature=0.5) is None, "LLaDA's authors take raw ones"
    assert confidence(temperature=0.5, confidence="filtered") == "filtered"
    assert confidence(confidence="filtered") is None, "greedy, and nothing is filtered"
    rules = replace(read_config(checkpoint), rules=AuthorsRules(confidence="filtered"))
    monkeypatch.setattr("pipeline.plan.fingerprint.read_config", lambda _: rules)
    assert confidence() is None
    assert confidence(temperature=0.5) == "filtered"
    assert confidence(temperature=0.5, confidence="raw") is None, "as earlier versions had it"
    assert confidence(top_k=3) == "filtered"


def test_a_run_that_did_not_know_tools_goes_on_without_them(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = write_parquet(tmp_path / "in.parquet", [{"prompt": "x", "tools": "[]"}])
    config = job(checkpoint, data, tmp_path / "run")
    plan = plan_of(config)
    assert plan.prompt_columns == ["prompt", "tools"]
    fields = {k: v for k, v in plan.fingerprint.items() if k != "prompt.tools_column"}
    before = replace(plan, prompt_columns=["prompt"], fingerprint=fields)
    assert make_plan(config, checkpoint, before).prompt_columns == ["prompt"]
    off = plan_of(job(checkpoint, data, tmp_path / "run", prompt__tools_column=None))
    assert off.prompt_columns == ["prompt"]
    assert differing(off.fingerprint, plan.fingerprint) == ["prompt.tools_column"]


def test_a_chat_template_in_a_file_counts_by_its_contents(
    checkpoint: Path, data: list[Path], tmp_path: Path
) -> None:
    def fields(name: str, text: str) -> dict[str, Any]:
        (tmp_path / name).write_text(text)
        changes = {"prompt__chat_template": str(tmp_path / name)}
        return plan_of(job(checkpoint, data, tmp_path / "run", **changes)).fingerprint

    assert differing(fields("a.jinja", "x"), fields("b.jinja", "x")) == []
    assert differing(fields("a.jinja", "x"), fields("a.jinja", "y")) == ["chat template file"]


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
        plan_of(job(checkpoint, data, tmp_path / "run", prompt__template=template))
    good = job(checkpoint, data, tmp_path / "run", prompt__template="{meta.title}")
    assert plan_of(good).prompt_columns == ["meta"]
