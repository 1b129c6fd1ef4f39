"""What Slurm says of jobs, in all the forms that it has for it."""

import time
from datetime import UTC, datetime

import pytest

from pipeline.slurm.commands import NoSlurm, SlurmError
from pipeline.slurm.queue import Job, ask, cluster_name, exit_code, seconds
from tests.pipeline.slurm.fake_slurm import UNKNOWN_ID, FakeSlurm, job, when


def test_a_running_job_is_told_with_its_times_and_nodes(slurm: FakeSlurm) -> None:
    times = {"start": "2026-11-27T01:01:07+0000", "end": "2026-11-27T03:01:07+0200"}
    slurm.says("squeue", job(7, "RUNNING", limit="2:00:00", nodes="node[1-2]", **times))
    assert ask([7, 8]) == [
        Job(
            job_id=7,
            state="RUNNING",
            began_at=datetime(2026, 11, 27, 1, 1, 7, tzinfo=UTC),
            ends_at=datetime(2026, 11, 27, 1, 1, 7, tzinfo=UTC),
            limit_s=7200.0,
            nodes="node[1-2]",
            user="me",
        )
    ]
    (call,) = slurm.calls("squeue")
    assert call.startswith("-h -r -t all -j 7,8 -o %F"), "every job in one call, ended ones too"


def test_settings_of_slurm_that_are_not_there_are_told_at_once(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm's commands themselves try for a minute, without a word."""
    monkeypatch.setenv("SLURM_CONF", "/no/slurm.conf")
    with pytest.raises(NoSlurm, match=r"^SLURM_CONF=/no/slurm.conf: no such file; "):
        ask([7])
    assert not slurm.calls("squeue")


def test_elements_that_wait_are_told_one_by_one(slurm: FakeSlurm) -> None:
    """As `squeue -r` prints them; without it they are one line, 9_[2-4%1]."""
    waiting = [job(9, "PENDING", element=i, reason="JobArrayTaskLimit") for i in (2, 3, 4)]
    slurm.says("squeue", "".join([job(9, "RUNNING", element=1, nodes="node1"), *waiting]))
    jobs = ask([9])
    assert [(its.label, its.is_waiting) for its in jobs] == [
        *(("9_1", False), ("9_2", True)),
        *(("9_3", True), ("9_4", True)),
    ]
    assert jobs[1].reason == "JobArrayTaskLimit"


def test_reasons_have_spaces_and_states_may_be_new(slurm: FakeSlurm) -> None:
    """Slurm 24 has states and reasons that no version before had."""
    reason = "(Nodes required for job are DOWN, DRAINED or reserved | for jobs)"
    lines = job(7, "PENDING", reason=reason) + job(8, "EXPEDITING", nodes="(null)")
    slurm.says("squeue", f"CLUSTER: other\n{lines}\n")
    first, second = ask([7, 8])
    assert (first.reason, first.is_waiting) == (reason, True)
    assert (second.nodes, second.reason, second.is_live) == ("", "", True), "unknown means live"


def test_only_jobs_that_are_queued_or_running_are_ask(slurm: FakeSlurm) -> None:
    states = ("COMPLETED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "COMPLETING", "PENDING")
    slurm.says("squeue", "".join(job(i, state) for i, state in enumerate(states)))
    assert [its.state for its in ask(range(6)) if its.is_live] == ["COMPLETING", "PENDING"]


def test_a_job_that_slurm_has_forgotten_is_no_error(slurm: FakeSlurm) -> None:
    """One job: an error. Several: the forgotten ones are left out without a word."""
    slurm.says("squeue", err=UNKNOWN_ID, code=1)
    assert ask([7]) == []
    slurm.says("squeue", job(8, "RUNNING"))
    assert [its.job_id for its in ask([7, 8])] == [8]


def test_without_ids_nothing_is_asked(slurm: FakeSlurm) -> None:
    slurm.says("squeue", job(7, "RUNNING"))
    assert ask([]) == []
    assert not slurm.calls("squeue"), "squeue without -j lists every job of the cluster"


def test_another_users_settings_of_squeue_do_not_count(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_PARTITION", "high")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    slurm.runs("squeue", 'echo "$SQUEUE_PARTITION $SLURM_TIME_FORMAT" >&2; exit 1\n')
    with pytest.raises(SlurmError, match=r"squeue: %Y-%m-%dT%H:%M:%S%z$"):
        ask([7])


@pytest.mark.parametrize("said", ["Unable to contact slurm controller (connect failure)", None])
def test_no_slurm_here_or_none_that_answers(slurm: FakeSlurm, said: str | None) -> None:
    if said is not None:
        slurm.says("squeue", err=f"slurm_load_jobs error: {said}\n", code=1)
    with pytest.raises(NoSlurm, match=(said and "connect failure") or "not found"):
        ask([7])


def test_a_controller_that_hangs_is_waited_for_as_long_as_asked(slurm: FakeSlurm) -> None:
    slurm.runs("squeue", "exec /bin/sleep 30\n")
    before = time.monotonic()
    with pytest.raises(NoSlurm, match=r"no answer within 0\.2 s"):
        ask([7], timeout_s=0.2)
    assert time.monotonic() - before < 10


def test_another_cluster_is_asked_by_its_name(slurm: FakeSlurm) -> None:
    slurm.says("squeue", f"CLUSTER: big\n{job(7, 'RUNNING', start=when(-9))}")
    assert [its.job_id for its in ask([7], "big")] == [7]
    assert slurm.calls("squeue")[0].startswith("--clusters big -h")


def test_the_clusters_name(slurm: FakeSlurm) -> None:
    slurm.says("scontrol", "BurstBufferType         = (null)\nClusterName             = test\n")
    assert cluster_name() == "test"


@pytest.mark.parametrize(
    ("code", "said"), [("3:0", "exit code 3"), ("0:9", "signal 9"), ("0:0", "exit code 0")]
)
def test_how_a_job_ended(slurm: FakeSlurm, code: str, said: str) -> None:
    slurm.says("scontrol", f"JobId=2 JobName=my job Reboot=0 ExitCode={code} RunTime=00:00:00\n")
    assert exit_code("2") == said
    slurm.says("scontrol", err=UNKNOWN_ID, code=1)
    assert exit_code("2") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("30:00", 1800.0), ("3:00:00", 10800.0), ("2-00:00:00", 172800.0)),
        *(
            ("UNLIMITED", None),
            ("365-00:00:00", None),
            ("INVALID", None),
            ("", None),
            ("NOT_SET", None),
        ),
    ],
)
def test_durations(text: str, expected: float | None) -> None:
    assert seconds(text) == expected
