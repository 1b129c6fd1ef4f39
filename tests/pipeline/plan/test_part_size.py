"""data.part_rows=null: the plan chooses the size of parts once, and a run keeps what it has."""

import json
from pathlib import Path

import numpy as np
import pytest

from engine.errors import UserError
from pipeline.input.files import InputFile
from pipeline.input.parts import MAX_OUTCOMES, cut
from pipeline.plan.build import make_plan, pin
from pipeline.plan.part_size import MAX_PARTS, PARTS_PER_WORKER, of_counted, of_rows
from pipeline.plan.run_json import Plan, load
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import job, prompts, write_parquet


@pytest.mark.parametrize("num_workers", [1, 2, 8, 64, 512])
@pytest.mark.parametrize("num_samples", [1, 16])
@pytest.mark.parametrize("num_rows", [1, 7, 164, 1_000, 30_000, 2_000_000, 90_000_000])
def test_parts_are_some_thousands_small_and_enough_for_all_workers(
    num_rows: int, num_samples: int, num_workers: int
) -> None:
    num_outcomes = num_rows * num_samples
    size = of_rows(num_rows, num_outcomes, None, num_workers)
    num_parts, outcomes = -(-num_rows // size.rows), size.rows * num_samples
    assert size.rows >= 1
    assert num_parts <= max(1.1 * MAX_PARTS, 2 * PARTS_PER_WORKER * num_workers) or (
        outcomes > MAX_OUTCOMES // 2
    )
    assert outcomes <= max(MAX_OUTCOMES, num_samples)
    if num_workers > 1:
        assert num_parts >= min(num_rows, PARTS_PER_WORKER * num_workers)
    if num_outcomes >= 1000:
        assert outcomes <= 0.05 * num_outcomes, "a kill loses a few percent at most"
    assert size.why


def test_two_million_rows_are_not_sixty_thousand_files() -> None:
    files = [InputFile(path=f"{i}", name=f"{i}", num_rows=20_000, digest="") for i in range(100)]
    size = of_rows(2_000_000, 2_000_000, None, 8)
    assert 1_000 <= len(cut(files, size.rows, None)) <= 4_000


def test_the_size_of_counted_rows_follows_those_that_are_taken() -> None:
    counts = np.zeros(100_000, dtype=np.int64)
    counts[::10] = 3
    size, batches = of_counted(iter([(0, 0, counts), (1, 0, counts)]), None, 1)
    assert size == of_rows(20_000, 60_000, None, 1)
    assert [int(its.sum()) for _, _, its in batches] == [30_000, 30_000]
    size, _ = of_counted(iter([]), 5, 1)
    assert (size.rows, size.why) == (5, "")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "in.parquet", prompts(100))


@pytest.mark.parametrize("where", [None, "length(prompt) > 3"])
@pytest.mark.parametrize("has_stamps", [True, False])
def test_a_run_of_before_keeps_its_parts(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    where: str | None,
    has_stamps: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its run.json has data.part_rows=32 and does not know why; now the default chooses."""
    folder, changes = RunFolder(tmp_path / "run"), {"data__where": where}
    folder.make()
    old = job(checkpoint, data, folder.path, data__part_rows=32, **changes)
    pin(make_plan(old, checkpoint), folder)
    raw = json.loads(folder.plan_file.read_text())
    del raw["why_part_rows"]
    folder.write_text(folder.plan_file, json.dumps(raw, indent=1))
    before = load(folder)
    if not has_stamps:
        monkeypatch.setattr("pipeline.plan.build.stamps_of", lambda paths: [None] * len(paths))
    now = job(checkpoint, data, folder.path, data__part_rows=None, **changes)
    plan = make_plan(now, checkpoint, before, num_workers=8)
    assert plan.parts == before.parts
    assert plan.size_note == ""
    pin(plan, folder)


def test_a_chosen_size_is_said_and_kept(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.make()
    chosen = job(checkpoint, data, folder.path, data__part_rows=None)
    plan = make_plan(chosen, checkpoint, None, num_workers=4)
    pin(plan, folder)
    assert [part.num_rows for part in plan.parts[:2]] == [3, 3]
    assert plan.size_note == (
        " of up to 3 rows (data.part_rows=null chooses so: 8 parts or more for each worker)"
    )
    assert make_plan(chosen, checkpoint, load(folder), num_workers=1) == plan, "on fewer workers"
    same = make_plan(
        job(checkpoint, data, folder.path, data__part_rows=3), checkpoint, load(folder)
    )
    assert same.parts == plan.parts
    other = job(checkpoint, data, folder.path, data__part_rows=5)
    with pytest.raises(UserError, match=r"data\.part_rows: 3 there, 5 now"):
        pin(make_plan(other, checkpoint, load(folder)), folder)


def test_only_the_field_that_differs_is_named(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    """With fewer rows, another size would be chosen."""
    folder = RunFolder(tmp_path / "run")
    folder.make()
    changes = {"data__part_rows": None}
    pin(make_plan(job(checkpoint, data, folder.path, **changes), checkpoint, None, 2), folder)
    fewer = job(checkpoint, data, folder.path, data__limit=9, **changes)
    with pytest.raises(UserError) as error:
        pin(make_plan(fewer, checkpoint, load(folder), 2), folder)
    assert "data.limit: not set there, 9 now" in str(error.value)
    assert "part_rows" not in str(error.value)


def test_the_first_parts_of_part_minutes_have_32_rows(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "many.parquet", prompts(32 * 70))
    changes = {"data__part_rows": None, "data__part_minutes": 1.0}
    plan = make_plan(job(checkpoint, data, tmp_path / "run", **changes), checkpoint)
    assert (plan.num_first, plan.parts[0].num_rows, plan.size_note) == (64, 32, "")


def test_run_json_has_one_part_a_line_and_older_files_are_read(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    plan = make_plan(job(checkpoint, data, tmp_path / "run"), checkpoint)
    text = plan.to_json()
    assert "\n  [0, 0, 4, 4, 4],\n  [0, 4, 4, 4, 4],\n" in text
    assert text.count("\n") < len(plan.parts) + 120
    older = json.dumps(json.loads(text), indent=1)
    assert Plan.from_json(older) == Plan.from_json(text) == plan
