"""The rank, threads and device of this process, from the launcher's environment variables."""

import os

import pytest

from pipeline.workers.ranks import Worker, cpu_threads, device_of, this_worker

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "TORCHELASTIC_RUN_ID": "none",
}


def test_the_rank_under_torchrun() -> None:
    assert this_worker(TORCHRUN) == Worker(
        rank=5, world=8, local_rank=1, local_world=4, under_torchrun=True
    )


def test_the_rank_in_an_srun_step_but_a_batch_script_is_one_worker() -> None:
    batch = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}
    assert this_worker(batch) == Worker()
    step = {
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    }
    assert this_worker(step) == Worker(rank=3, world=4, local_rank=1, local_world=2)


def test_without_a_launcher_there_is_one_worker() -> None:
    assert this_worker({}) == Worker()


@pytest.mark.parametrize(
    ("worker", "requested", "omp", "threads"),
    [
        (Worker(), None, None, 6),
        (Worker(), None, "3", 3),
        (Worker(), 2, "3", 2),
        (Worker(local_world=2, under_torchrun=True), None, "1", 3),
        (Worker(local_world=2, under_torchrun=True), 1, "1", 1),
        (Worker(local_world=2, under_torchrun=True), None, "2", 2),
        (Worker(local_world=1, under_torchrun=True), None, "1", 1),
        (Worker(local_world=8), None, None, 1),
        (Worker(), None, "nonsense", 6),
    ],
)
def test_threads(
    monkeypatch: pytest.MonkeyPatch,
    worker: Worker,
    requested: int | None,
    omp: str | None,
    threads: int,
) -> None:
    """OMP_NUM_THREADS counts, unless it is the 1 that torchrun sets by itself."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    env = {} if omp is None else {"OMP_NUM_THREADS": omp}
    assert cpu_threads(worker, requested, env) == threads


def test_more_workers_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"3 workers on .*2 GPUs.*--nproc-per-node=2"):
        device_of(Worker(local_rank=2, local_world=3))
