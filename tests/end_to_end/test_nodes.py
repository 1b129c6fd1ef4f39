"""Two nodes (two torchrun processes that rendezvous): one dies, and the other finishes the job."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.run import run
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import assert_same_rows, job, output_rows, prompts, write_parquet
from tests.end_to_end.launcher import start, wait_until
from tests.end_to_end.quick_heartbeat import HELD

NUM_ROWS = 120


@pytest.fixture
def nodes(checkpoint: Path, tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    write_parquet(tmp_path / "in.parquet", prompts(NUM_ROWS))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    args = [
        *(
            "data.path=in.parquet",
            "model=demo",
            f"model.path={checkpoint}",
            "output=run",
            "data.part_rows=4",
        ),
        *("decoding=fixed", "cache=none", "generation.max_new_tokens=20", "seed=3"),
        *("engine.max_sequences=2", "engine.block_length=4", "generation.temperature=0.7"),
    ]
    launcher = ["--nnodes=2", "--master-addr=127.0.0.1", f"--master-port={port}"]
    module = "tests.end_to_end.quick_heartbeat"
    made = [
        start(args, tmp_path, launcher=[*launcher, *rank], num_workers=1, module=module)
        for rank in (["--node-rank=0"], ["--node-rank=1"])
    ]
    yield made
    for node in made:
        for worker in workers_of(node):
            os.kill(worker, signal.SIGKILL)
        node.kill()
        node.communicate()


def workers_of(node: subprocess.Popen[str]) -> list[int]:
    try:
        children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [int(child) for child in children]


def test_the_open_parts_of_a_dead_node_are_done_by_the_other(
    checkpoint: Path, tmp_path: Path, nodes: list[subprocess.Popen[str]]
) -> None:
    folder = RunFolder(tmp_path / "run")
    wait_until(nodes[1], (tmp_path / HELD).exists)
    for pid in [*workers_of(nodes[1]), nodes[1].pid]:  # as if the machine were lost
        os.kill(pid, signal.SIGKILL)
    wait_until(nodes[0], folder.summary_file.exists)
    config = job(
        checkpoint,
        tmp_path / "in.parquet",
        tmp_path / "whole",
        decoding={"name": "fixed"},
        cache={"name": "none"},
        generation__max_new_tokens=20,
        generation__temperature=0.7,
        engine__max_sequences=2,
        seed=3,
    )
    run(config, 0)
    assert_same_rows(output_rows(folder.path), output_rows(tmp_path / "whole"))
    log = folder.log_file(0).read_text()
    assert "were lost with the workers that had them; redone now" in log
