"""A row's settings: its columns override the job's; an invalid value becomes the row's error."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from pipeline.config.job import ColumnsConfig, GenerationConfig
from pipeline.input.row_settings import MAX_SAMPLES, RowSettings, SettingsReader, override_columns

JOB = GenerationConfig(max_new_tokens=64, temperature=0.5, num_samples=2)
FLOATS = ("temperature", "top_p", "guidance")
SETTINGS = ("max_new_tokens", "temperature", "top_k", "top_p", "guidance", "num_samples", "seed")


def read(rows: dict[str, list[Any] | pa.Array], job: GenerationConfig = JOB) -> list[RowSettings]:
    table = pa.table(rows)
    return SettingsReader(job, override_columns(table.schema, ColumnsConfig())).read(table)


def test_a_value_overrides_the_jobs_and_null_does_not() -> None:
    first, second, third = read(
        {
            "max_new_tokens": [8, None, None],
            "temperature": [None, 0.9, None],
            "num_samples": [3, None, None],
            "seed": [None, -5, None],
        }
    )
    assert first == RowSettings(max_new_tokens=8, temperature=0.5, num_samples=3)
    assert second == RowSettings(max_new_tokens=64, temperature=0.9, num_samples=2, seed=-5)
    assert third == RowSettings(max_new_tokens=64, temperature=0.5, num_samples=2)


def test_zero_is_a_value_and_not_null() -> None:
    (row,) = read({"temperature": [0], "seed": [0], "num_samples": [1]})
    assert (row.temperature, row.seed, row.error) == (0.0, 0, None)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.0, None]),
        pa.array([1, None], pa.uint8()),
        pa.array([Decimal("1.0"), None]),
    ],
    ids=lambda column: str(column.type),
)
@pytest.mark.parametrize("setting", SETTINGS)
def test_whole_numbers_may_be_in_any_numeric_column(setting: str, column: pa.Array) -> None:
    row, default = read({setting: column})
    value = getattr(row, setting)
    assert (row.error, value) == (None, 1)
    assert type(value) is (float if setting in FLOATS else int)
    assert default == read({"seed": pa.nulls(1)})[0]


BAD = {
    "max_new_tokens": [0, -1, 1.5, float("nan"), float("inf"), 2**31],
    "num_samples": [0, -3, 2.5, MAX_SAMPLES + 1],
    "temperature": [-0.1, float("nan"), float("inf")],
    "top_k": [0, -1, 1.5, float("nan"), 2**31],
    "top_p": [0, -0.1, 1.01, float("nan"), float("inf")],
    "guidance": [-1, float("nan"), float("inf")],
    "seed": [0.5, float("-inf"), 1e30, pa.scalar(2**63, pa.uint64())],
}


@pytest.mark.parametrize(
    ("setting", "value"), [(s, v) for s, values in BAD.items() for v in values]
)
def test_an_invalid_value_becomes_one_output_row_with_an_error(setting: str, value: Any) -> None:
    value = value if isinstance(value, pa.Scalar) else pa.scalar(value)
    column = pa.array([value, pa.scalar(None, value.type)])
    bad, good = read({setting: column, "num_samples": [3, 3]} | {setting: column})
    assert bad.error is not None
    assert bad.error.startswith(f"{setting}={value}: give ")
    assert bad.error.endswith("or null to use the job's")
    assert bad.num_samples == 1
    assert good.error is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"num_samples": [4], "temperature": [0.0]}, "num_samples=4 with temperature=0.0: "),
        ({"temperature": [0]}, "generation.num_samples=2 with temperature=0.0: "),
    ],
)
def test_several_greedy_samples_are_an_error_of_the_row(
    rows: dict[str, list[Any]], message: str
) -> None:
    (row,) = read(rows)
    assert row.error is not None
    assert row.error.startswith(message)
    assert "temperature above 0, or one sample" in row.error
    assert row.num_samples == 1


def test_several_samples_with_the_jobs_greedy_temperature_are_an_error_too() -> None:
    greedy = GenerationConfig()
    many, warm = read({"num_samples": [4, 4], "temperature": [None, 0.1]}, greedy)
    assert many.error is not None
    assert many.error.startswith("num_samples=4 with generation.temperature=0.0")
    assert (warm.error, warm.num_samples) == (None, 4)


def test_errors_name_the_input_column() -> None:
    rows = pa.table({"heat": [-1.0], "temperature": [0.3]})
    columns = override_columns(rows.schema, ColumnsConfig(temperature="heat"))
    (row,) = SettingsReader(JOB, columns).read(rows)
    assert row.error is not None
    assert row.error.startswith("heat=-1.0: ")


def test_override_columns_can_be_renamed_and_turned_off() -> None:
    schema = pa.schema([("seed", pa.int64()), ("heat", pa.float32()), ("prompt", pa.string())])
    assert override_columns(schema, ColumnsConfig()) == {"seed": "seed"}
    assert override_columns(schema, ColumnsConfig(seed=None)) == {}
    config = ColumnsConfig(temperature="heat")
    assert override_columns(schema, config) == {"temperature": "heat", "seed": "seed"}
    with pytest.raises(ValueError, match=r"columns\.seed='sed': not in the data.*seed, heat"):
        override_columns(schema, ColumnsConfig(seed="sed"))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", [pa.string(), pa.bool_(), pa.list_(pa.int64())], ids=str)
def test_an_override_column_that_is_not_numeric_is_refused(setting: str, kind: pa.DataType) -> None:
    message = rf"columns\.{setting}='{setting}'.*is of type {kind}.*columns\.{setting}=null"
    message = message.replace("<", ".").replace(">", ".")
    with pytest.raises(ValueError, match=message):
        override_columns(pa.schema([(setting, kind)]), ColumnsConfig())


def read_stop(column: pa.Array, job: GenerationConfig) -> list[RowSettings]:
    table = pa.table({"ends": column})
    columns = override_columns(table.schema, ColumnsConfig(stop="ends"))
    return SettingsReader(job, columns).read(table)


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string())], ids=str)
def test_a_column_of_lists_of_texts_overrides_stop_where_it_is_named(kind: pa.DataType) -> None:
    job = GenerationConfig(stop=["end"], top_k=5, top_p=0.5, confidence="raw", guidance=2.0)
    cells = pa.array([["a", "b c"], None, []], kind)
    own, jobs, none = read_stop(cells, job)
    assert (own.stop, jobs.stop, none.stop) == (("a", "b c"), ("end",), ())
    assert (own.top_k, own.top_p, own.confidence, own.guidance) == (5, 0.5, "raw", 2.0)
    assert override_columns(pa.schema([("stop", kind)]), ColumnsConfig()) == {}
    with pytest.raises(ValueError, match=r"columns\.stop='stop'.*type int64.*lists of texts.*null"):
        override_columns(pa.schema([("stop", pa.int64())]), ColumnsConfig(stop="stop"))


def test_a_stop_text_that_is_empty_null_or_not_utf8_is_the_rows_error() -> None:
    raw = pa.array([["a"], [""], ["b", None], [b"\xff"]], pa.list_(pa.binary()))
    good, *bad = read_stop(raw.cast(pa.list_(pa.string()), safe=False), GenerationConfig())
    assert (good.stop, good.error) == (("a",), None)
    for row, shown in zip(bad, ("ends=['']", "ends=['b', None]", "ends=text that"), strict=True):
        assert row.error is not None
        assert row.error.startswith(shown)
        assert "give a list of texts that are not empty, in valid UTF-8" in row.error


def test_rows_are_counted_only_if_their_numbers_of_samples_can_differ() -> None:
    one = GenerationConfig(temperature=0.5)
    assert not SettingsReader(one, {"temperature": "t", "seed": "s"}).needs_count
    assert not SettingsReader(JOB, {}).needs_count
    assert SettingsReader(one, {"num_samples": "n"}).needs_count
    assert SettingsReader(JOB, {"seed": "s"}).needs_count, "a bad seed makes one row of two"
