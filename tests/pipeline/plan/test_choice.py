"""Which columns go to the output under which names, and which are refused when the plan is made."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.plan.build import make_plan
from pipeline.plan.run_json import Plan
from tests.checkpoints import job, write_parquet


@pytest.fixture
def plan(checkpoint: Path, tmp_path: Path) -> Any:
    """Plans a job over one row with these columns."""

    def made(columns: dict[str, Any] | pa.Table, **changes: Any) -> Plan:
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table, tmp_path / "in.parquet")
        config = job(checkpoint, tmp_path / "in.parquet", tmp_path / "run", **changes)
        return make_plan(config, checkpoint)

    return made


P = {"prompt": ["x"]}


@pytest.mark.parametrize(
    ("columns", "both"),
    [
        ({"Text": ["y"]}, ("'Text'", "'text'")),
        ({"ERROR": [1]}, ("'ERROR'", "'error'")),
        ({"Row_ID": ["r"]}, ("'Row_ID'", "'row_id'")),
        ({"label": [1], "Label": [2]}, ("'label'", "'Label'")),
        ({"Prompt": [1]}, ("'prompt'", "'Prompt'")),
        ({"STRASSE": [1], "straße": [2]}, ("'STRASSE'", "'straße'")),
    ],
)
def test_names_that_differ_only_in_case_are_refused_with_both_and_the_remedy(
    plan: Any, columns: dict[str, Any], both: tuple[str, str]
) -> None:
    with pytest.raises(ValueError, match="differ only in case") as error:
        plan(P | columns)
    message = str(error.value)
    assert all(name in message for name in both)
    assert "'data.rename={" in message
    assert "'data.carry=[" in message
    name = next(reversed(columns))
    assert plan(P | columns, data__rename={name: "other"}).output_schema.names.count("other") == 1
    assert name not in plan(P | columns, data__carry=["prompt"]).output_schema.names


def test_columns_that_are_not_carried_may_have_any_name(plan: Any) -> None:
    made = plan(P | {"Text": ["y"]}, data__carry=[], data__where="Text = 'y'")
    assert made.carried == []


def test_a_renamed_column_goes_to_the_output_and_other_settings_use_the_inputs_name(
    plan: Any,
) -> None:
    changes = {"prompt__template": "{text}!", "data__rename": {"text": "before", "prompt": "p"}}
    made = plan(P | {"text": ["y"]}, **changes)
    assert made.prompt_columns == ["text"]
    assert made.output_schema.names[2:5] == ["p", "before", "text"]
    assert Plan.from_json(made.to_json()) == made
    read = pa.table({"prompt": ["x"], "text": ["y"]})
    assert made.carried_of(read).to_pylist() == [{"p": "x", "before": "y"}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__rename": {"q": "r"}}, r"data\.rename: 'q' is not in the data, which has prompt"),
        (
            {"data__rename": {"n": "r"}, "data__carry": ["prompt"]},
            r"data\.rename: 'n' is not carried to the output",
        ),
        ({"data__rename": {"n": "SEED"}}, r"the input's 'n' would collide .* own 'seed'"),
        ({"data__rename": {"n": "prompt"}}, r"'prompt' and 'n' would collide in the output;"),
    ],
)
def test_a_name_that_cannot_be_given_is_refused(
    plan: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan(P | {"n": [1]}, **changes)


def test_an_override_that_the_output_does_not_repeat_is_not_dropped(plan: Any) -> None:
    """num_generated_tokens of the output is another number than the length asked for."""
    columns = P | {"num_generated_tokens": [3], "seed": [5]}
    changes = {"columns__max_new_tokens": "num_generated_tokens"}
    with pytest.raises(ValueError, match="the input's 'num_generated_tokens' would collide"):
        plan(columns, **changes)
    made = plan(columns, **changes, data__rename={"num_generated_tokens": "wanted"})
    assert made.overrides["max_new_tokens"] == "num_generated_tokens"
    assert made.output_schema.names[2:4] == ["prompt", "wanted"]
    assert "seed" not in made.carried, "the output's own seed is the same number"


def test_two_columns_of_one_name_stop_only_a_job_that_needs_them(plan: Any) -> None:
    names = ["prompt", "n", "n", "other"]
    table = pa.Table.from_arrays([["x"], [1], [2], ["y"]], names=names)
    with pytest.raises(ValueError, match=r"in\.parquet: 2 columns are called 'n'.*carry=\[prompt,"):
        plan(table)
    with pytest.raises(ValueError, match="2 columns are called 'n'"):
        plan(table, data__carry=["prompt"], data__where="n = 1")
    with pytest.raises(ValueError, match="2 columns are called 'n'"):
        plan(table, data__carry=["prompt"], data__id_column="n")
    assert plan(table, data__carry=["prompt"]).read_schema.names == ["prompt"]


@pytest.mark.parametrize("template", [None, "Say {prompt}"])
@pytest.mark.parametrize(
    "values", [pa.array([b"x"]), pa.array([0], pa.timestamp("ns")), pa.array([1], pa.decimal128(3))]
)
def test_a_prompt_that_no_row_could_have_is_refused(
    plan: Any, template: str | None, values: pa.Array
) -> None:
    with pytest.raises(
        ValueError, match=r"the column 'prompt' is of type .*, but prompts are made"
    ):
        plan({"prompt": values}, prompt__template=template)


def test_a_prompt_of_numbers_needs_a_template(plan: Any) -> None:
    with pytest.raises(ValueError, match=r'put it into one: prompt\.template="\{prompt\}"'):
        plan({"prompt": [1]})
    assert plan({"prompt": [1]}, prompt__template="{prompt}").prompt_columns == ["prompt"]


@pytest.mark.parametrize(
    ("where", "remedy"),
    [("prompt = 'q'", "of 1 in 1 files; loosen the condition"), (None, "at least one row")],
)
def test_no_rows_at_all_has_a_remedy(plan: Any, where: str | None, remedy: str) -> None:
    rows = pa.table(P) if where else pa.table(P).slice(1)
    with pytest.raises(ValueError, match=remedy):
        plan(rows, data__where=where)


def test_ids_that_are_not_utf8_are_refused_with_their_row(plan: Any) -> None:
    ids = pa.array([b"ok", b"\xff"]).cast(pa.string(), safe=False)
    table = pa.table({"prompt": ["a", "b"], "key": ids})
    with pytest.raises(ValueError, match=r"data\.id_column='key': not valid UTF-8 in row 1 of"):
        plan(table, data__id_column="key")


def test_ids_may_be_a_dictionary(plan: Any) -> None:
    ids = pa.array(["k1", "k2"]).dictionary_encode()
    assert plan(pa.table({"prompt": ["a", "b"], "key": ids}), data__id_column="key").num_rows == 2


def test_runs_of_earlier_versions_keep_the_columns_that_they_have(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Their plan knows no key=value folders and carries a column called Text: both stay so, also
    if the files' times have changed."""
    place = tmp_path / "in" / "lang=py"
    place.mkdir(parents=True)
    write_parquet(place / "a.parquet", [{"prompt": "x", "Text": "y"}])
    config = job(checkpoint, tmp_path / "in", tmp_path / "run", data__rename={"Text": "t"})
    now = make_plan(config, checkpoint)
    assert now.carried == ["prompt", "Text", "lang"]
    old_config = job(checkpoint, tmp_path / "in", tmp_path / "run")
    text = now.to_json().replace('"lang": "py"', "").replace(", lang=py)", ")")
    text = text.replace('"Text": "t"', "").replace('"lang"', '"prompt"')
    before = Plan.from_json(text)
    fields = {k: v for k, v in before.fingerprint.items() if k != "data.rename"}
    before = replace(before, carried=["prompt", "Text"], fingerprint=fields)
    for stamp in (before.files[0].stamp, "other"):
        files = [replace(before.files[0], stamp=stamp)]
        again = make_plan(old_config, checkpoint, replace(before, files=files))
        assert (again.carried, again.renamed) == (["prompt", "Text"], {})
        assert again.files[0].keys == {}
        assert again.parts == before.parts
