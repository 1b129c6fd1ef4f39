"""What is said of an interruption, for everything that a supervisor may have seen."""

from dataclasses import replace

import pytest

from jobs.slurm.cause import Seen, cause, said_by_slurm
from jobs.slurm.node import NodeEnd
from jobs.slurm.outcome import JobNow
from jobs.slurm.step import StepEnd

RUNNING = JobNow(state="RUNNING", reason="None", restarts=0)
REQUEUED = JobNow(state="COMPLETING", reason="None", restarts=1)
SEEN = Seen(
    end=None,
    job=RUNNING,
    restart=0,
    is_warned=False,
    is_terminated=False,
    nodes=["n1", "n2"],
    down=[],
    said="",
    messages=[],
)


def ended(*nodes: NodeEnd | None, exit_code: int = 137) -> StepEnd:
    return StepEnd(exit_code=exit_code, nodes=list(nodes))


def node(name: str, exit_code: int | None, was_told: bool = False, at: str = "1") -> NodeEnd:
    return NodeEnd(node=name, exit_code=exit_code, was_told=was_told, is_port_taken=False, at=at)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (replace(SEEN, is_warned=True, job=replace(RUNNING, is_preempted=True)), "preempted"),
        (replace(SEEN, is_warned=True, is_terminated=True, job=REQUEUED), "preempted"),
        (replace(SEEN, is_terminated=True, job=REQUEUED, said="PREEMPTION"), "preempted"),
        (
            replace(SEEN, is_terminated=True, job=REQUEUED, said="JOB REQUEUE"),
            "queued again with scontrol requeue",
        ),
        (
            replace(SEEN, is_terminated=True, job=REQUEUED),
            "preempted, or queued again with scontrol requeue",
        ),
        (replace(SEEN, is_terminated=True, job=REQUEUED, down=["n2"]), "n2 failed"),
        (replace(SEEN, is_terminated=True, job=REQUEUED, said="NODE FAILURE"), "a node failed"),
        (replace(SEEN, is_terminated=True, job=None), "ended by Slurm"),
        (replace(SEEN, is_terminated=True), "told to end (SIGTERM)"),
        (SEEN, "the workers did not run"),
        (replace(SEEN, end=ended(None, None, exit_code=-9)), "srun was killed (SIGKILL)"),
        (
            replace(SEEN, end=ended(None, None)),
            "the workers did not start (srun ended with exit code 137)",
        ),
        (
            replace(SEEN, end=ended(node("n1", 1, True), node("n2", None))),
            "the processes on n2 were killed",
        ),
        (
            replace(SEEN, end=ended(node("n1", None), node("n2", None))),
            "the processes on n1, n2 were killed",
        ),
        (
            replace(SEEN, end=ended(node("n1", 1, True), node("n2", -9))),
            "torchrun on n2 was killed (SIGKILL)",
        ),
        (
            replace(SEEN, end=ended(node("n1", 1, at="2"), node("n2", 1, at="1"))),
            "torchrun on n2 ended with exit code 1",
        ),
        (
            replace(SEEN, end=ended(node("n1", 1, True), node("n2", 1, True), exit_code=0)),
            "preempted, or its step was told to end with scancel",
        ),
        (
            replace(SEEN, end=ended(node("n1", 0), node("n2", 1)), messages=["disk full", "x"]),
            "disk full",
        ),
    ],
)
def test_what_interrupted_a_start(seen: Seen, words: str) -> None:
    assert cause(seen) == (words, False)


@pytest.mark.parametrize(
    "seen",
    [
        replace(SEEN, is_warned=True),
        replace(SEEN, is_warned=True, end=ended(node("n1", 1, True), node("n2", 1, True))),
        replace(SEEN, is_terminated=True, job=replace(RUNNING, reason="TimeLimit")),
        replace(SEEN, is_terminated=True, job=None, said="TIME LIMIT"),
    ],
)
def test_the_time_limit(seen: Seen) -> None:
    assert cause(seen) == ("its time limit came", True)


def test_slurms_own_words_in_the_log_of_a_job() -> None:
    said = (
        "a worker: DUE TO PREEMPTION\n"
        "slurmstepd-node1: error: *** JOB 1 ON node1 CANCELLED AT 2026-11-27T01:21:48 DUE TO JOB "
        "REQUEUE ***\n"
    )
    assert said_by_slurm(said) == "JOB REQUEUE"
    assert said_by_slurm(said.replace("JOB REQUEUE", "TIME LIMIT")) == "TIME LIMIT"
    assert said_by_slurm("*** STEP 1.0 ON node1 CANCELLED AT 2026-11-27T01:19:46 ***") == ""
    failed = "0: x: *** STEP 1.0 ON n CANCELLED AT 2026 DUE TO NODE FAILURE, SEE SLURMCTLD LOG ***"
    assert said_by_slurm(failed) == "NODE FAILURE"
