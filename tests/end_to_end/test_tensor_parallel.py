"""A group of ranks that hold one model together writes the same rows as a single rank."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.run import run
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.totals import Totals, add_up, read_stats
from tests.checkpoints import (
    EOS,
    MASK,
    assert_same_rows,
    job,
    output_rows,
    prompts,
    write_parquet,
    write_tokenizer,
)
from tests.end_to_end.launcher import (
    HELD,
    PATIENCE_S,
    finished,
    kill_a_worker,
    start,
    told_once,
)
from tests.published import write_weights

BIDIRECTIONAL = ("llada", "dream", "llada_moe")
"""All have four attention heads; Dream has two heads for keys and values."""
NUM_ROWS = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data, a checkpoint per layout, and in one/ a run of each on one rank."""
    folder = tmp_path_factory.mktemp("place")
    data = write_parquet(folder / "in.parquet", prompts(NUM_ROWS))
    for layout in (*BIDIRECTIONAL, "llada2"):
        checkpoint = write_checkpoint(folder / layout, layout)
        cache = {"name": "block_causal" if layout == "llada2" else "dual"}
        block_length = None if layout == "llada2" else 4
        changes: dict[str, Any] = {"cache": cache, "engine__block_length": block_length}
        run(job(checkpoint, data, folder / "one" / layout, **changes), 0)
    return folder


def write_checkpoint(folder: Path, layout: str) -> Path:
    tokenizer = write_tokenizer(folder)
    ids = {
        "mask_token_id": tokenizer.convert_tokens_to_ids(MASK),
        "eos_token_id": tokenizer.convert_tokens_to_ids(EOS),
        "vocab_size": len(tokenizer),
    }
    if layout == "llada":
        ids["embedding_size"] = len(tokenizer)
    write_weights(folder, layout, **ids)
    return folder


def arguments(place: Path, size: int) -> list[str]:
    """The fixture's job as a command line, without the model."""
    return [
        *(f"data.path={place / 'in.parquet'}", "data.part_rows=4"),
        *("generation.max_new_tokens=8", "decoding=threshold", "decoding.threshold=0.3"),
        *(f"engine.tensor_parallel={size}", "engine.max_sequences=6"),
    ]


def assert_same_as_one(place: Path, output: Path, layout: str) -> None:
    rows = output_rows(output)
    assert len(rows) == NUM_ROWS
    assert_same_rows(rows, output_rows(place / "one" / layout))


def stats_of(run: Path) -> Totals:
    folder = RunFolder(run)
    return add_up(read_stats(folder, folder.parts_done()))


@pytest.mark.parametrize("size", [2, 4])
def test_a_sweep_on_one_group_gives_the_rows_of_one_rank(
    place: Path, tmp_path: Path, size: int
) -> None:
    args = [*arguments(place, size), "cache=dual", "engine.block_length=4"]
    for layout in BIDIRECTIONAL:
        (tmp_path / layout).symlink_to(place / layout)
    sweep = ["-m", f"model.path={','.join(BIDIRECTIONAL)}", "output=run/${model.path}"]
    sweep += ["model.dtype=float32"]
    said = finished([*sweep, *args], tmp_path, num_workers=size)
    assert "Warning" not in said, said
    assert said.count(f"workers: 1, each of {size} ranks") == len(BIDIRECTIONAL)
    for layout in BIDIRECTIONAL:
        assert_same_as_one(place, tmp_path / "run" / layout, layout)
        mine, its = (stats_of(folder / layout) for folder in (tmp_path / "run", place / "one"))
        assert mine.devices == [f"{size} x cpu (1 thread)"]
        for count in ("num_forwards", "num_query_tokens", "num_iterations"):
            assert getattr(mine, count) == getattr(its, count)
        # With four ranks and two heads for keys and values, each head is kept on two ranks.
        times = 2 if (layout, size) == ("dream", 4) else 1
        assert mine.peak_cache_bytes == times * its.peak_cache_bytes


def test_two_groups_with_expert_parallelism_write_every_row_once(
    place: Path, tmp_path: Path
) -> None:
    args = [*arguments(place, 2), "model=demo_block", f"model.path={place / 'llada2'}"]
    args += ["engine.expert_parallel=true", "data.part_rows=1", "output=run"]
    said = finished(args, tmp_path, num_workers=4)
    assert "workers: 2, each of 2 ranks" in said
    assert f"{NUM_ROWS}/{NUM_ROWS} rows (100%), 0 failed" in said
    assert_same_as_one(place, tmp_path / "run", "llada2")
    ranks = pq.read_table(tmp_path / "run" / "stats")["rank"].to_pylist()
    assert len(ranks) == NUM_ROWS
    assert set(ranks) <= {0, 2}


def test_after_kill_9_torchruns_restart_does_the_rest(place: Path, tmp_path: Path) -> None:
    """The group is killed when 2 of 12 parts are done."""
    data = write_parquet(tmp_path / "more.parquet", prompts(2 * NUM_ROWS))
    changes: dict[str, Any] = {"decoding": {"name": "fixed"}, "generation__max_new_tokens": 12}
    changes |= {"generation__temperature": 0.7, "data__part_rows": 2}
    run(job(place / "llada", data, tmp_path / "one", **changes), 0)
    args = [
        *(
            f"data.path={data}",
            "model=demo",
            f"model.path={place / 'llada'}",
            "output=run",
            "data.part_rows=2",
        ),
        *("decoding=fixed", "generation.max_new_tokens=12", "generation.temperature=0.7"),
        *("engine.tensor_parallel=2", "engine.block_length=4", "engine.max_sequences=2"),
    ]
    process = start(["2", *args], tmp_path, launcher=["--max-restarts=2"], module=HELD)
    kill_a_worker(process, tmp_path / "run", after_parts=2)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert "pipeline.run stopped" not in said
    assert said.count("workers: 1, each of 2 ranks") == 2
    assert_same_rows(output_rows(tmp_path / "run"), output_rows(tmp_path / "one"))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("full_disk", "output=run: the disk is full"),
        ("no_memory", "among 2 ranks, and one rank cannot retry alone: lower engine."),
    ],
)
def test_the_rank_that_fails_reports_it_and_all_ranks_end(
    place: Path, tmp_path: Path, fault: str, message: str
) -> None:
    """The other rank is waiting in an exchange."""
    args = [
        fault,
        *arguments(place, 2),
        "model=demo",
        f"model.path={place / 'llada'}",
        "output=run",
    ]
    said = finished(args, tmp_path, code=1, module="tests.end_to_end.broken")
    assert message in told_once(said)
    assert "gloo" not in said
