"""Rows whose columns override settings: one worker, two workers and the unbatched reference loop
give the same results."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine import LLM
from engine.model.load import load_model
from engine.request import Request
from pipeline.config.job import JobConfig, PromptConfig
from pipeline.prompt.prompter import Prompter
from pipeline.run import run
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import (
    assert_same_rows,
    job,
    output_rows,
    prompts,
    write_json_lines,
    write_parquet,
)
from tests.end_to_end.launcher import finished
from tests.numerics.reference_loop import decode

NUM_ROWS, NEW_TOKENS, BLOCK, SEED = 24, 12, 4, 3
BROKEN = {
    2: ("max_new_tokens", 0, "max_new_tokens=0: give a whole number of at least 1"),
    7: ("temperature", -0.5, "temperature=-0.5: give 0 (greedy) or a positive number"),
    9: ("num_samples", 0, "num_samples=0: give a whole number from 1"),
    12: ("num_samples", 2, "num_samples=2 with generation.temperature=0.0"),
    14: ("max_new_tokens", 250, "fit with max_new_tokens=250 into the model's context of 256"),
    19: ("max_new_tokens", 256, "max_new_tokens=256: leaves no room for a prompt"),
}


def rows_with_settings() -> list[dict[str, Any]]:
    rows = prompts(NUM_ROWS)
    for i, row in enumerate(rows):
        row["max_new_tokens"] = [None, 5, 17][i % 3]
        row["temperature"] = [None, 0.8][i % 2]
        row["num_samples"] = 1 + i % 4 if i % 2 else None
        row["seed"] = 1000 + i // 2 if i % 5 == 0 else None
    for i, (setting, value, _) in BROKEN.items():
        rows[i][setting] = value
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("data") / "in.parquet", rows_with_settings())


def config(checkpoint: Path, data: Path, output: Path, **changes: Any) -> JobConfig:
    return job(
        checkpoint,
        data,
        output,
        decoding={"name": "threshold", "threshold": 0.9},
        generation__max_new_tokens=NEW_TOKENS,
        seed=SEED,
        **changes,
    )


@pytest.fixture(scope="module")
def one_worker(
    checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("one") / "run"
    run(config(checkpoint, data, folder), 0)
    return output_rows(folder)


def test_each_row_is_generated_with_its_settings(
    checkpoint: Path, one_worker: list[dict[str, Any]]
) -> None:
    told = {int(row["row_id"].split(":")[1]): row["error"] for row in one_worker if row["error"]}
    assert list(told) == list(BROKEN)
    for i, (_, _, words) in BROKEN.items():
        assert words in told[i]

    rows, wanted = rows_with_settings(), list[tuple[str, int]]()
    for i, row in enumerate(rows):
        num_samples = 1 if i in (2, 7, 9, 12) else row["num_samples"] or 1
        wanted += [(f"in:{i}", sample) for sample in range(num_samples)]
    assert [(row["row_id"], row["sample_index"]) for row in one_worker] == wanted

    model, prompter = load_model(checkpoint), Prompter(checkpoint, PromptConfig(), 256)
    for row in one_worker:
        if row["error"] is None:
            given = rows[int(row["row_id"].split(":")[1])]
            request = Request(
                request_id=0,
                prompt_ids=prompter.token_ids(given),
                max_new_tokens=given["max_new_tokens"] or NEW_TOKENS,
                temperature=given["temperature"] or 0.0,
                seed=row["seed"],
            )
            expected = decode(
                model,
                request,
                cache={"name": "dual"},
                decoding={"name": "threshold"},
                block_length=BLOCK,
            )
            assert row["token_ids"] == expected.token_ids, row["row_id"]


def test_samples_of_a_row_differ_and_a_seed_column_is_used(
    one_worker: list[dict[str, Any]],
) -> None:
    by_row: dict[str, list[dict[str, Any]]] = {}
    for row in one_worker:
        by_row.setdefault(row["row_id"], []).append(row)
    for samples in by_row.values():
        assert len({row["seed"] for row in samples}) == len(samples)
    assert len({tuple(row["token_ids"]) for row in by_row["in:23"]}) == 4
    assert [by_row[f"in:{i}"][0]["seed"] for i in (0, 5, 15)] == [1000, 1002, 1007]
    assert len(by_row["in:15"]) == 4


def test_two_workers_and_a_resume_give_the_same_rows(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    one_worker: list[dict[str, Any]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    num_rows = len(one_worker)
    folder = RunFolder(tmp_path / "run")
    args = [
        *(
            f"data.path={data}",
            "model=demo",
            f"model.path={checkpoint}",
            "output=run",
            "data.part_rows=4",
        ),
        *("decoding.threshold=0.9", f"generation.max_new_tokens={NEW_TOKENS}"),
        *(f"seed={SEED}", f"engine.block_length={BLOCK}"),
    ]
    assert f"{num_rows}/{num_rows} rows (100%)" in finished(args, tmp_path)
    assert_same_rows(output_rows(folder.path), one_worker)
    summary = json.loads(folder.summary_file.read_text())
    assert (summary["num_rows_in"], summary["num_rows_out"]) == (NUM_ROWS, num_rows)

    lost = [len(output_rows_of(folder, part)) for part in (1, 4)]
    for part in (1, 4):
        folder.data_file(part).unlink()
    run(config(checkpoint, data, folder.path), 0)
    assert f"{num_rows - sum(lost)} rows done before" in capfd.readouterr().err
    assert_same_rows(output_rows(folder.path), one_worker)


def output_rows_of(folder: RunFolder, part: int) -> list[dict[str, Any]]:
    return [
        row for row in output_rows(folder.path) if int(row["row_id"].split(":")[1]) // 4 == part
    ]


def test_json_lines_and_another_size_of_parts_give_the_same_rows(
    checkpoint: Path, tmp_path: Path, one_worker: list[dict[str, Any]]
) -> None:
    lines = [{k: v for k, v in row.items() if v is not None} for row in rows_with_settings()]
    data = write_json_lines(tmp_path / "in.jsonl", lines)
    run(config(checkpoint, data, tmp_path / "run", data__part_rows=5), 0)
    rows = output_rows(tmp_path / "run")
    names = ("row_id", "sample_index", "text", "token_ids", "error", "seed", "num_query_tokens")
    assert [[row[name] for name in names] for row in rows] == [
        [row[name] for name in names] for row in one_worker
    ]


def test_a_run_with_other_override_columns_is_refused(
    checkpoint: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(config(checkpoint, data, tmp_path / "run", data__limit=2), 0)
    changed = config(checkpoint, data, tmp_path / "run", data__limit=2, columns__temperature=None)
    with pytest.raises(SystemExit):
        run(changed, 0)
    assert "columns.temperature: temperature there, not set now" in capfd.readouterr().err


def test_columns_of_filters_and_guidance_give_the_rows_of_llm(
    checkpoint: Path, tmp_path: Path
) -> None:
    rows = prompts(9)
    columns: dict[str, list[Any]] = {
        "temperature": [0.9, 1.4, 0.0],
        "top_k": [None, 3, 1],
        "top_p": [None, 0.5],
        "guidance": [None, 0.0, 1.5, None],
        "seed": [*range(9)],
    }
    for i, row in enumerate(rows):
        row.update({name: values[i % len(values)] for name, values in columns.items()})
    data = write_parquet(tmp_path / "in.parquet", rows)
    decoding = {"name": "threshold", "threshold": 0.3}
    run(job(checkpoint, data, tmp_path / "run", decoding=decoding), 0)
    llm = LLM(
        *(checkpoint,),
        **{"dtype": "float32", "device": "cpu", "block_length": 4, "max_sequences": 2},
        **{"decoding": decoding, "cache": "dual"},
    )
    answers = llm.generate(
        [row["prompt"] for row in rows],
        max_new_tokens=8,
        guidance=[row["guidance"] or 0.0 for row in rows],
        **{name: [row[name] for row in rows] for name in columns if name != "guidance"},
        progress=False,
    )
    ours = {row["row_id"]: row for row in output_rows(tmp_path / "run")}
    for i, answer in enumerate(answers):
        assert (answer.error, ours[f"in:{i}"]["error"]) == (None, None)
        assert ours[f"in:{i}"]["token_ids"] == answer.token_ids
    assert sum(row["num_query_tokens"] for row in ours.values()) == sum(
        answer.num_query_tokens for answer in answers
    )
