"""GPU hours from sacct: what counts, and when they are not known."""

from datetime import datetime, timedelta

import pytest

from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.accounting import gpu_hours
from pipeline.slurm.commands import NoSlurm, SlurmError
from tests.pipeline.slurm.fake_slurm import NO_ACCOUNTS, FakeSlurm, submitted, when

BOTH = "billing=64,cpu=64,gres/gpu:h100=16,gres/gpu=16,mem=800G,node=2"


def record(
    job: str = "1234",
    *,
    begin: float = -3000,
    elapsed: int = 1800,
    tres: str = BOTH,
    nodes: int = 2,
) -> str:
    """A line of sacct -P, of a start that has ended."""
    end = when(begin + elapsed)
    return f"{job}|{when(begin - 60)}|{when(begin)}|{end}|{elapsed}|2|{tres}\n"


def total(folder: RunFolder) -> float | None:
    hours = gpu_hours(folder)
    return None if hours is None else hours.total


def test_every_start_counts_with_the_gpus_that_it_had(slurm: FakeSlurm, folder: RunFolder) -> None:
    """-D: without it sacct tells only of the last start of a job that was requeued."""
    submitted(folder)
    running = f"1234|{when(-700)}|{when(-600)}|Unknown|600|2|{BOTH}\n"
    slurm.says("sacct", record() + record(elapsed=900) + running)
    assert total(folder) == pytest.approx((1800 + 900 + 600) * 16 / 3600)
    (call,) = slurm.calls("sacct")
    assert "-X -D -n -P -j 1234 -S 20" in call


@pytest.mark.parametrize(
    ("tres", "gpus"),
    [
        ("cpu=8,gres/gpu=8,node=1", 8),
        ("cpu=8,gres/gpu:a100=8,node=1", 8),
        ("cpu=8,gres/gpu:a100=4,gres/gpu:h100=2,node=1", 6),
        (BOTH, 16),
        ("gres/gpu:1g.5gb=3,gres/gpumem=80G,gres/gpuutil=100,gres/shard=4", 3),
    ],
)
def test_gpus_with_and_without_a_type_are_not_counted_twice(
    slurm: FakeSlurm, folder: RunFolder, tres: str, gpus: int
) -> None:
    submitted(folder)
    slurm.says("sacct", record(elapsed=3600, tres=tres))
    assert total(folder) == pytest.approx(gpus)


def test_a_cluster_that_accounts_for_no_gpus_gave_those_that_were_asked_for(
    slurm: FakeSlurm, folder: RunFolder
) -> None:
    submitted(folder, slurm={"gpus_per_node": 4})
    slurm.says("sacct", record(elapsed=3600, tres="billing=8,cpu=8,node=2"))
    assert total(folder) == pytest.approx(8)


def test_elements_count_and_those_that_wait_do_not(slurm: FakeSlurm, folder: RunFolder) -> None:
    submitted(folder, array=32)
    waiting = f"1234_[2-31%4]|{when(-60)}|Unknown|Unknown|0|1|\n"
    lines = record("1234_0", elapsed=3600) + record("1234_1", elapsed=1800) + waiting
    slurm.says("sacct", lines)
    assert total(folder) == pytest.approx(24)


def test_an_older_job_of_the_same_number_is_left_out(slurm: FakeSlurm, folder: RunFolder) -> None:
    """Numbers are given again when a cluster has used them up."""
    submitted(folder)
    slurm.says("sacct", record(begin=-90_000, elapsed=36_000) + record(elapsed=3600))
    assert total(folder) == pytest.approx(16)


def test_several_submissions_are_added_or_none_is_told(slurm: FakeSlurm, folder: RunFolder) -> None:
    submitted(folder, 1234)
    submitted(folder, 1300)
    slurm.says("sacct", record(elapsed=3600))
    assert total(folder) == pytest.approx(32)
    slurm.runs("sacct", f'case "$*" in *1234*) echo "{record().strip()}";; esac\n')
    assert total(folder) is None, "a part of the hours would look like all of them"


def test_no_number_without_gpus_or_without_a_submission(
    slurm: FakeSlurm, folder: RunFolder
) -> None:
    assert gpu_hours(folder) is None, "sacct is not even asked"
    submitted(folder, slurm={"gpus_per_node": 0})
    slurm.says("sacct", record(tres="billing=8,cpu=8,node=2"))
    assert total(folder) is None


def test_accounts_that_are_not_kept_or_cannot_be_asked(slurm: FakeSlurm, folder: RunFolder) -> None:
    submitted(folder)
    with pytest.raises(NoSlurm):
        gpu_hours(folder)
    slurm.says("sacct", err=NO_ACCOUNTS, code=1)
    with pytest.raises(SlurmError, match="disabled"):
        gpu_hours(folder)


def test_a_start_outside_of_slurm_is_seen(slurm: FakeSlurm, folder: RunFolder) -> None:
    submitted(folder)
    slurm.says("sacct", record(begin=-3000, elapsed=1000))
    hours = gpu_hours(folder)
    assert hours is not None
    now = datetime.now().astimezone()
    inside, outside = now - timedelta(seconds=2500), now - timedelta(seconds=200)
    assert hours.covers([inside])
    assert not hours.covers([inside, outside])
