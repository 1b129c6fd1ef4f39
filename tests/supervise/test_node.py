"""One node of a job, without Slurm: where it finds the first one, and what it leaves."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.slurm import node
from jobs.slurm.node import NOT_SHARED, NodeEnd, read_ends, write_end
from tests.end_to_end.launcher import environment

ADDRESSES = {"first": "10.0.0.1", "second": "10.0.0.2", "debian": "127.0.1.1"}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "resolved", lambda name: ADDRESSES.get(name, ""))
    monkeypatch.setattr(node, "outgoing", lambda to: "10.0.0.9" if to.startswith("10.") else to)


@pytest.mark.parametrize(
    ("name", "launcher", "address"),
    [
        ("first", "10.1.1.1", "10.1.1.1"),  # as Slurm reaches it
        ("first", "127.0.0.1", "10.0.0.1"),
        ("unknown", "127.0.0.1", "127.0.0.1"),  # a cluster on one host
        ("debian", "127.0.0.1", "127.0.0.1"),
        ("first", "", "10.0.0.1"),
        ("unknown", "", "127.0.0.1"),
    ],
)
def test_where_other_nodes_find_the_first(name: str, launcher: str, address: str) -> None:
    env = {"SLURM_LAUNCH_NODE_IPADDR": launcher} if launcher else {}
    assert node.first_address(name, env) == address


@pytest.mark.parametrize(
    ("second", "launcher", "address"),
    [
        ("second", "127.0.0.1", "10.0.0.9"),  # on the way to the second node
        ("unknown", "10.1.1.1", "10.1.1.1"),
        ("unknown", "127.0.0.1", "127.0.0.1"),
        ("debian", "10.1.1.1", "10.1.1.1"),
    ],
)
def test_the_first_nodes_own_address(second: str, launcher: str, address: str) -> None:
    assert node.address_of_first(second, {"SLURM_LAUNCH_NODE_IPADDR": launcher}) == address


def run_node(folder: Path, *args: str, number: int = 0, nodes: int = 2) -> tuple[int, str]:
    """Exit code and output of a node, whose job prints 1."""
    for name in ("logs", "nodes"):
        (folder / name).mkdir(exist_ok=True)
    proof = folder / "nodes" / "7-0.shared"
    command = [
        *(sys.executable, "-m", "jobs.slurm.node", f"--folder={folder}", f"--proof={proof}"),
        *("--start=7-0", "--attempt=0", f"--nodes={nodes}", "--ranks=1", "--first=here"),
        *("--second=there", "--shutdown-s=5", *args, "--", "timeit", "-n1", "-r1", "print(1)"),
    ]
    env = {**environment(), "SLURM_NODEID": str(number), "SLURMD_NODENAME": f"node{number + 1}"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_a_node_leaves_a_log_and_how_it_ended(tmp_path: Path) -> None:
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / "7-0.shared").touch()
    code, said = run_node(tmp_path, "--port=1", nodes=1)
    assert code == 0, said
    assert "1\n1 loop, best of 1" in (tmp_path / "logs" / "7-0-node1.log").read_text()
    (end,) = read_ends(tmp_path, "7-0", 0, 1)
    assert end is not None
    assert (end.node, end.exit_code, end.was_told, end.is_port_taken) == ("node1", 0, False, False)


def test_a_port_that_another_process_has_taken_is_told(tmp_path: Path) -> None:
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / "7-0.shared").touch()
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        code, _ = run_node(tmp_path, f"--port={taken.getsockname()[1]}")
    end, other = read_ends(tmp_path, "7-0", 0, 2)
    assert other is None
    assert end is not None
    assert end.is_port_taken, (tmp_path / "logs" / "7-0-node1.log").read_text()
    assert code == end.exit_code == 1


def test_a_folder_that_is_not_shared_is_found_out_before_the_work(tmp_path: Path) -> None:
    code, said = run_node(tmp_path, "--port=1", "--shared-s=0.2", number=1)
    assert code == NOT_SHARED
    assert said == (
        f"{tmp_path} is not shared between the nodes: node2 does not see what here wrote there; "
        "give output= (and slurm.folder, if you set it) on a disk that all nodes share\n"
    )
    assert list((tmp_path / "logs").iterdir()) == []


def test_a_node_that_is_told_to_end_while_it_looks_does_not_blame_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(proof: Path, patience_s: float) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return False

    monkeypatch.setattr(node, "seen", told)
    monkeypatch.setenv("SLURM_NODEID", "1")
    before = {its: signal.getsignal(its) for its in (signal.SIGUSR1, signal.SIGTERM)}
    try:
        code = node.main(
            [
                *(f"--folder={tmp_path}", f"--proof={tmp_path / 'a' / 'proof'}", "--start=7-0"),
                *("--attempt=0", "--nodes=2", "--ranks=1", "--first=a", "--port=1"),
                *("--shutdown-s=5", "timeit"),
            ]
        )
    finally:
        for its, handler in before.items():
            signal.signal(its, handler)
    assert code == 0


def test_a_node_without_a_word_is_none(tmp_path: Path) -> None:
    (tmp_path / "nodes").mkdir()
    end = NodeEnd(node="b", exit_code=-9, was_told=True, is_port_taken=False, at="2026")
    write_end(tmp_path, "7_2-1", 0, 1, end)
    assert read_ends(tmp_path, "7_2-1", 0, 3) == [None, end, None]
    assert os.listdir(tmp_path / "nodes") == ["7_2-1-0-1.json"]
