"""A run folder that one of the nodes does not see, on a real Slurm."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.run_folder.layout import RunFolder
from pipeline.slurm import records
from tests.slurm.cluster import PATIENCE_S, Cluster, program
from tests.slurm.test_submit import DEMO, Shell


class Apart(Cluster):
    """Its second node has another disk than the first at one folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._hidden = folder

    def _start(self, name: str, *arguments: str) -> None:
        if arguments[-1] != self.nodes[1]:
            super()._start(name, *arguments)
            return
        path = program(name)
        assert path, f"{name} is missing"
        hidden = f"mount -t tmpfs none '{self._hidden}' && exec \"$@\""
        super()._start("unshare", "--mount", "bash", "-c", hidden, "bash", path, *arguments)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    runs = tmp_path / "runs"
    runs.mkdir()
    with Apart(runs) as cluster:
        yield Shell(cluster, tmp_path / "work")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide a folder from a process")
def test_a_node_that_does_not_see_the_run_folder_is_named_before_any_work(shell: Shell) -> None:
    output = shell.folder.parent / "runs" / "demo"
    shell("jobs.submit", *DEMO, "slurm.nodes=2", "slurm.memory=1G", f"output={output}")
    run = RunFolder(output)
    (submission,) = records.submissions(run)
    end, starts = time.monotonic() + PATIENCE_S, records.starts(run, submission.job_id)
    while not (starts and starts[-1].outcome):
        assert time.monotonic() < end, starts
        time.sleep(0.5)
        starts = records.starts(run, submission.job_id)
    (start,) = starts
    assert start.outcome == "failed"
    assert start.why is not None
    assert (
        "give output= (and slurm.folder, if it is set) on a disk that all nodes share" in start.why
    )
    log = (run.slurm / "logs" / f"{submission.job_id}.log").read_text()
    assert f"{shell.cluster.nodes[1]} does not see what {shell.cluster.nodes[0]} wrote" in log
    assert not run.parts_done()
    shell.cluster.wait(str(submission.job_id), until="FAILED")
    said = shell("pipeline.status", str(output), code=1)
    assert "on a disk that all nodes share" in said
