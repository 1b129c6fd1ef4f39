"""A job over two nodes of a real Slurm: whatever ends its starts, it finishes without a hand, and
its rows are those of a run that nothing disturbed."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.slurm import records
from pipeline.slurm.records import StartRecord
from tests.checkpoints import assert_same_rows, output_rows, prompts, write_parquet
from tests.end_to_end.launcher import finished
from tests.slurm.cluster import Cluster
from tests.slurm.configuration import Settings
from tests.slurm.submitted import AGENT, NODE, SRUN, WORKER, Submitted, set_environment

ARGS = [
    *(
        "conf=demo",
        "task=null",
        "data.limit=60",
        "data.part_rows=1",
        "generation.max_new_tokens=32",
    ),
    *("generation.temperature=0.5", "engine.max_sequences=4"),
]
NUM_PARTS = 60
HELD_AT = 10


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The rows of a run on this machine, by one worker."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finished([*ARGS, f"output={folder / 'run'}"], folder, num_workers=1)
    return output_rows(folder / "run")


@pytest.fixture
def submit(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Submitted]]:
    set_environment(monkeypatch)

    def submitted(where: Cluster = cluster, args: list[str] = ARGS, **how: Any) -> Submitted:
        return Submitted(where, tmp_path, args, **how)

    return submitted


def check(job: Submitted, undisturbed: list[dict[str, Any]], outcomes: str) -> list[StartRecord]:
    """Wait for the job's end; check that it went through these outcomes, and its rows."""
    starts = job.end()
    assert [its.outcome for its in starts] == outcomes.split(), job.log()
    assert starts[-1].parts_after == NUM_PARTS
    assert_same_rows(output_rows(job.path), undisturbed)
    return starts


def test_the_demo_over_two_nodes(
    submit: Callable[..., Submitted], undisturbed: list[dict[str, Any]]
) -> None:
    job = submit(args=[*ARGS, "task=functions"])
    (start,) = check(job, undisturbed, "finished")
    assert start.nodes == ["node1", "node2"]
    assert start.why == "all parts are done"
    score = json.loads((job.path / "scores.json").read_text())
    summary = json.loads((job.path / "summary.json").read_text())
    assert score["num_rows"] == summary["num_rows_out"] == len(undisturbed)
    assert summary["score"]["pass_at"] == score["pass_at"]
    logs = sorted(log.name for log in (job.path / "slurm" / "logs").iterdir())
    assert logs == [f"{job.id}-0-node1.log", f"{job.id}-0-node2.log", f"{job.id}.log"]
    assert "workers: 2;" in job.log()


def test_scontrol_requeue(
    submit: Callable[..., Submitted], undisturbed: list[dict[str, Any]]
) -> None:
    job = submit(hold=HELD_AT)
    job.wait_for_parts(HELD_AT)
    job.cluster.run("scontrol", "requeue", str(job.id))
    job.wait_for_start(1)
    job.let_go()
    first, _ = check(job, undisturbed, "requeued finished")
    assert first.why is not None
    assert first.why.startswith("queued again with scontrol requeue, after ")


@pytest.mark.parametrize(("grace", "has_notice"), [(0, True), (20, True), (20, False)])
def test_preemption(
    submit: Callable[..., Submitted],
    undisturbed: list[dict[str, Any]],
    grace: int,
    has_notice: bool,
) -> None:
    with Cluster(Settings(grace=grace, preempt_signal=has_notice)) as cluster:
        job = submit(cluster, hold=HELD_AT)
        job.wait_for_parts(HELD_AT)
        high = ("-p", "high", "--nodes=2", "--exclusive", "--output=/dev/null")
        other = cluster.submit(*high, "--wrap", "sleep 1")
        cluster.wait(other, until="COMPLETED")
        job.wait_for_start(1)
        job.let_go()
        first, _ = check(job, undisturbed, "requeued finished")
        assert first.why is not None
        assert first.why.startswith("preempted, "), first


def test_a_time_limit_shorter_than_the_work(
    submit: Callable[..., Submitted], undisturbed: list[dict[str, Any]]
) -> None:
    job = submit(pace_s=3.5, time=2, signal_s=35)
    starts = job.end()
    assert len(starts) > 1, starts
    check(job, undisturbed, "requeued " * (len(starts) - 1) + "finished")
    assert all((its.why or "").startswith("its time limit came, ") for its in starts[:-1])
    parts = [its.parts_before for its in starts]
    assert parts == sorted(set(parts)), "a start without a part"


def test_a_killed_worker_is_started_again_in_the_same_start(
    submit: Callable[..., Submitted], undisturbed: list[dict[str, Any]]
) -> None:
    job = submit(hold=HELD_AT)
    job.wait_for_parts(HELD_AT)
    job.kill("node2", WORKER)
    job.let_go()
    check(job, undisturbed, "finished")


@pytest.mark.parametrize(
    ("node", "what", "why"),
    [
        ("node2", AGENT, r"torchrun on node2 was killed \(SIGKILL\), "),
        # Those on node1 may have no time to tell how they ended.
        ("node2", NODE, "the processes on (node1, )?node2 were killed, "),
        ("node1", SRUN, r"srun was killed \(SIGKILL\), "),
    ],
)
def test_a_killed_launcher_leaves_no_worker_and_the_job_starts_again(
    submit: Callable[..., Submitted],
    undisturbed: list[dict[str, Any]],
    node: str,
    what: str,
    why: str,
) -> None:
    job = submit(hold=HELD_AT)
    job.wait_for_parts(HELD_AT)
    (worker,) = job.processes("node2", WORKER)
    job.kill(node, what)
    job.wait_until(lambda: worker not in job.processes("node2", WORKER), "an orphan lives")
    job.wait_for_start(1)
    job.let_go()
    first, _ = check(job, undisturbed, "requeued finished")
    assert first.why is not None
    assert re.match(why, first.why), first


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_a_node_goes_down(
    submit: Callable[..., Submitted], undisturbed: list[dict[str, Any]], node: str
) -> None:
    job = submit(hold=HELD_AT)
    job.wait_for_parts(HELD_AT)
    job.cluster.node_down(node)
    job.wait_until(lambda: job.starts()[0].outcome is not None, "its end is not recorded")
    job.cluster.node_up(node)
    job.wait_for_start(1)
    job.let_go()
    first, _ = check(job, undisturbed, "requeued finished")
    assert first.why is not None
    assert first.why.startswith(f"{node} failed, ")


def test_a_cancelled_job_does_not_come_back(submit: Callable[..., Submitted]) -> None:
    job = submit(hold=HELD_AT)
    job.wait_for_parts(HELD_AT)
    job.cluster.run("scancel", str(job.id))
    (start,) = job.end("CANCELLED")
    job.wait_until(lambda: job.starts()[0].outcome is not None, "its end is not recorded")
    assert (start.outcome, start.why) == ("cancelled", "cancelled with scancel")
    time.sleep(job.cluster.settings.cred_expire + 3)  # a requeued job would run by now
    assert job.cluster.job(str(job.id))["JobState"] == "CANCELLED"


def test_a_fault_of_the_jobs_own_is_not_tried_again(
    submit: Callable[..., Submitted], tmp_path: Path
) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(4))
    job = submit(args=["model=demo", f"data.path={data}"])
    data.unlink()
    (start,) = job.end("FAILED")
    assert start.outcome == "failed"
    assert "in.parquet" in (start.why or "")
    assert f"jobs.slurm: failed: {start.why}" in job.log()


def test_two_starts_in_a_row_without_a_part_end_the_job(submit: Callable[..., Submitted]) -> None:
    job = submit(hold=0)
    for restart in range(2):
        job.wait_for_start(restart)
        job.wait_until(lambda: bool(job.processes("node2", NODE)), "the node does not start")
        job.kill("node2", NODE)
    first, second = job.end("FAILED")
    assert (first.outcome, second.outcome) == ("requeued", "stuck")
    assert (second.why or "").startswith("two starts in a row finished no part (start 0: ")


def test_an_array_and_the_job_that_finishes_it(
    submit: Callable[..., Submitted], undisturbed: list[dict[str, Any]]
) -> None:
    job = submit(args=[*ARGS, "task=functions"], nodes=1, array=3, hold=HELD_AT)
    job.wait_for_parts(HELD_AT)
    (last,) = [its for its in job.starts() if its.element == 2]
    assert last.restart == 0
    # Slurm gives an element that starts last the array's own number too.
    job.cluster.run("scontrol", "requeue", f"{job.id}_2")
    job.wait_until(lambda: len(job.starts()) == 4, "the element does not come back")
    job.let_go()
    job.wait_for_state(job.finisher_id, "COMPLETED")
    outcomes = [(its.element, its.restart, its.outcome) for its in job.starts()]
    assert outcomes == [
        *((0, 0, "finished"), (1, 0, "finished"), (2, 0, "requeued"), (2, 1, "finished"))
    ]
    (finisher,) = records.starts(job.run, job.finisher_id)
    assert (finisher.outcome, finisher.parts_after) == ("finished", NUM_PARTS)
    summary = json.loads((job.path / "summary.json").read_text())
    assert summary["num_rows_out"] == len(undisturbed)
    assert summary["score"]["num_rows"] == len(undisturbed)
    assert_same_rows(output_rows(job.path), undisturbed)


def test_the_finisher_names_the_parts_of_a_cancelled_element(
    submit: Callable[..., Submitted], undisturbed: list[dict[str, Any]], tmp_path: Path
) -> None:
    job = submit(nodes=1, array=4, hold=0)
    job.wait_until(lambda: len(job.starts()) == 4, "not all elements have started")
    job.cluster.run("scancel", f"{job.id}_3")
    job.wait_until(lambda: job.starts()[3].outcome is not None, "its end is not recorded")
    job.let_go()
    job.wait_for_state(job.finisher_id, "FAILED")
    (finisher,) = records.starts(job.run, job.finisher_id)
    missing = NUM_PARTS - job.parts()
    assert 0 < missing <= NUM_PARTS // 4
    assert finisher.why is not None
    assert finisher.why.startswith(f"{missing} parts are missing (")
    assert "element 3: cancelled in start 0 (cancelled with scancel)" in finisher.why
    assert not (job.path / "summary.json").exists()
    finished(job.args, tmp_path, num_workers=1)  # a plain launch does what is missing
    assert (job.path / "summary.json").exists()
    assert_same_rows(output_rows(job.path), undisturbed)


def test_workers_of_a_node(submit: Callable[..., Submitted], undisturbed: list[Any]) -> None:
    """One node, two workers: torchrun without a rendezvous."""
    job = submit(nodes=1, ranks_per_node=2)
    check(job, undisturbed, "finished")
    assert "workers: 2;" in job.log()
