"""A run folder accepts only the run that it holds: which settings and files make it another."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.model.authors import AuthorsRules
from engine.model.load import read_config
from pipeline.plan.build import pin
from pipeline.plan.fingerprint import differing
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import job, prompts, write_checkpoint, write_parquet
from tests.pipeline.plan.plans import planned

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
    pin(planned(job(checkpoint, data, folder.path)), folder)
    return folder


@pytest.mark.parametrize("field", CHANGES)
def test_a_field_that_changes_the_rows_is_named_with_both_values(
    pinned: RunFolder, checkpoint: Path, data: list[Path], field: str
) -> None:
    changed = planned(job(checkpoint, data, pinned.path, **{field: CHANGES[field]}))
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
        pin(planned(changed), pinned)
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
    pin(planned(job(checkpoint, data, pinned.path, **changes)), pinned)


def test_changed_input_files_are_refused(
    pinned: RunFolder, checkpoint: Path, data: list[Path]
) -> None:
    write_parquet(data[1], prompts(5, first=1))
    with pytest.raises(ValueError, match=r"input files: .*two \(5 rows"):
        pin(planned(job(checkpoint, data, pinned.path)), pinned)


def test_another_model_is_refused(pinned: RunFolder, data: list[Path], tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", seed=7)
    with pytest.raises(ValueError, match=r"model files: .*other"):
        pin(planned(job(other, data, pinned.path)), pinned)


def test_moved_files_are_the_same_files(
    pinned: RunFolder, checkpoint: Path, data: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "moved").mkdir()
    moved = [file.rename(tmp_path / "moved" / file.name) for file in data]
    pin(planned(job(checkpoint, moved, pinned.path)), pinned)


def test_a_folder_with_parts_but_no_plan_is_refused(
    checkpoint: Path, data: list[Path], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.data_file(0).touch()
    with pytest.raises(ValueError, match=r"no run\.json"):
        pin(planned(job(checkpoint, data, folder.path)), folder)


def test_the_confidence_of_sampled_rows_is_in_the_fingerprint_where_it_is_not_as_it_was(
    checkpoint: Path, data: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def confidence(**generation: Any) -> Any:
        settings = {f"generation__{name}": value for name, value in generation.items()}
        plan = planned(job(checkpoint, data, tmp_path / "run", **settings))
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


def test_a_chat_template_in_a_file_counts_by_its_contents(
    checkpoint: Path, data: list[Path], tmp_path: Path
) -> None:
    def fields(name: str, text: str) -> dict[str, Any]:
        (tmp_path / name).write_text(text)
        changes = {"prompt__chat_template": str(tmp_path / name)}
        return planned(job(checkpoint, data, tmp_path / "run", **changes)).fingerprint

    assert differing(fields("a.jinja", "x"), fields("b.jinja", "x")) == []
    assert differing(fields("a.jinja", "x"), fields("a.jinja", "y")) == ["chat template file"]
