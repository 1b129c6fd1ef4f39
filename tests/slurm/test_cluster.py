"""The cluster does what the other tests here rely on, and leaves nothing behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import ROOT, Cluster
from tests.slurm.configuration import Settings
from tests.slurm.keeper import descendants

WAITS = "echo start ${SLURM_RESTART_COUNT:-0}; [ $SLURM_RESTART_COUNT ] || sleep 600"
"""Waits in its first start, ends in the second."""


def submit(cluster: Cluster, folder: Path, *options: str, does: str = WAITS) -> str:
    log = f"--output={folder}/log.txt"
    append = ("--open-mode=append", "--requeue")
    return cluster.submit(*append, log, *options, "--wrap", does)


def test_a_job_runs_on_both_nodes(cluster: Cluster, tmp_path: Path) -> None:
    does = "srun --label bash -c 'echo $SLURMD_NODENAME'"
    job = submit(cluster, tmp_path, "--nodes=2", "--ntasks-per-node=1", does=does)
    ended = cluster.wait(job, until="COMPLETED")
    assert (ended["NodeList"], ended["Restarts"]) == ("node[1-2]", "0")
    assert sorted((tmp_path / "log.txt").read_text().splitlines()) == ["0: node1", "1: node2"]


def test_a_requeued_job_starts_again_in_seconds(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    job = submit(cluster, tmp_path)
    # A job is RUNNING before its script has said anything.
    cluster.wait(job, until=lambda _: log.exists() and "start 0\n" in log.read_text())
    cluster.run("scontrol", "requeue", job)
    ended = cluster.wait(job, until="COMPLETED")
    assert ended["Restarts"] == "1"
    said = log.read_text().splitlines()
    assert [line for line in said if line.startswith("start")] == ["start 0", "start 1"]


def test_high_preempts_main_which_comes_back(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, "--nodes=2", "--exclusive")
    cluster.wait(job, until="RUNNING")
    high = cluster.submit(
        "-p", "high", "--nodes=2", "--exclusive", "-o", "/dev/null", "--wrap", "true"
    )
    cluster.wait(high, until="COMPLETED")
    assert cluster.wait(job, until="COMPLETED")["Restarts"] == "1"


def test_a_node_that_is_down_stays_down_and_its_job_moves(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path)
    first = cluster.wait(job, until="RUNNING")["NodeList"]
    cluster.node_down(first)
    try:
        ended = cluster.wait(job, until="COMPLETED")
    finally:
        cluster.node_up(first)
    assert (ended["Restarts"], ended["NodeList"] != first) == ("1", True)


def test_a_job_that_starts_again_has_left_nothing_running(cluster: Cluster, tmp_path: Path) -> None:
    """A process with a session of its own and no parent, as torchrun's workers have been left."""
    left = f"(setsid bash -c 'echo $$ >{tmp_path}/left; sleep 600' </dev/null >/dev/null 2>&1 &)"
    job = submit(cluster, tmp_path, does=f"[ $SLURM_RESTART_COUNT ] || {left}; {WAITS}")
    (tmp_path / "left").touch()
    cluster.wait(job, until=lambda _: "\n" in (tmp_path / "left").read_text())
    pid = int((tmp_path / "left").read_text())
    assert _name(pid)
    cluster.run("scontrol", "requeue", job)
    cluster.wait(job, until="COMPLETED")
    assert not _name(pid)


def test_elements_of_an_array_are_told_apart(cluster: Cluster, tmp_path: Path) -> None:
    array = submit(cluster, tmp_path, "--array=0-1", does="exit $SLURM_ARRAY_TASK_ID")
    assert cluster.wait(f"{array}_0", until="COMPLETED")["ArrayTaskId"] == "0"
    assert cluster.wait(f"{array}_1", until="FAILED")["ExitCode"] == "1:0"
    assert len(cluster.jobs(array)) == 2
    with pytest.raises(KeyError, match="2 jobs"):
        cluster.job(array)


def test_a_job_that_does_not_get_so_far_is_told_with_the_logs(cluster: Cluster) -> None:
    job = cluster.submit("--hold", "--wrap", "true")
    with pytest.raises(AssertionError, match=r"JobHeldUser(.|\n)*== slurmctld.log"):
        cluster.wait(job, until="RUNNING", timeout_s=0.2)
    cluster.run("scancel", job)


def test_two_clusters_stand_side_by_side_with_gpus(cluster: Cluster) -> None:
    asks = ("sbatch", "--test-only", "--gpus-per-node=2", "--wrap", "true")
    assert "node configuration is not available" in cluster.run(*asks, code=1).stderr
    with Cluster(Settings(nodes=1, gpus=2)) as other:
        other.run(*asks)
        counted = other.run("srun", "--gpus-per-node=2", "printenv", "SLURM_GPUS_ON_NODE")
        assert counted.stdout == "2\n"
        assert list(other._states()) == ["node1"]
    assert not other.folder.exists()
    assert len(cluster._states()) == 2


def test_nothing_is_left_when_the_tests_are_killed() -> None:
    """Neither daemons nor a job that has turned its back on its parent and ignores signals."""
    holds = """
import sys, time
from tests.slurm.cluster import Cluster
with Cluster() as cluster:
    does = "trap '' TERM HUP; setsid sleep 600 & wait"
    cluster.wait(cluster.submit("-o", "/dev/null", "--wrap", does), until="RUNNING")
    print(cluster._keeper.pid, cluster.folder, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", holds], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout
        number, folder = tests.stdout.readline().split()
        keeper = int(number)
        end = time.monotonic() + 20
        while not any(_runs(pid, "sleep") for pid in descendants(keeper)):
            assert time.monotonic() < end, "the job does not sleep"
            time.sleep(0.05)
        started = [keeper, *descendants(keeper)]
        assert {"munged", "slurmctld", "slurmd"} <= {_name(pid) for pid in started}
        tests.send_signal(signal.SIGKILL)
        while any(_name(pid) for pid in started):
            assert time.monotonic() < end, [_name(pid) for pid in started]
            time.sleep(0.05)
    assert not Path(folder).exists()


def _name(pid: int) -> str:
    """What a process runs; nothing if it is gone, or waits only for its parent to look."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    name, state = fields[fields.index("(") + 1 :].rsplit(")", 1)
    return "" if state.split()[0] == "Z" else name


def _runs(pid: int, name: str) -> bool:
    return _name(pid) == name
