"""Runs torchrun on one node of a job: srun starts this once per node, in the container if there is
one.

Slurm sends SIGTERM to every process of a step. torchrun, told so, lets its workers finish and
always ends with exit code 1; here that becomes 0, because srun would kill the other nodes' workers,
which may still be finishing, as soon as one node ends with an error.

What torchrun and the workers print goes to a log of this node and start. What is said here goes to
the log of the job, which shows it even if this node does not see the job's folder.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

NOT_SHARED = 200
"""Exit code of a node that does not see what the first node wrote. srun ends with the highest code
of all nodes, and the codes of signals are lower."""
SHARED_S = 60.0
"""Seconds until what one node wrote must be seen by all: network file systems show it late."""
POLL_S = 0.5
MAX_RESTARTS = 3
"""How often torchrun starts the workers again, without a new start of the job."""
READ_TIMEOUT_S = 180
"""Seconds that torchrun on the other nodes waits for the first node's: importing torch from a cold
network disk takes a while."""
PORT_TAKEN = "address already in use"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEnd:
    """How torchrun ended on one node, as the node leaves it for the supervisor."""

    node: str
    exit_code: int | None = None
    """Of torchrun; negative: killed by this signal; None: it has not ended, or nobody was left to
    tell."""
    was_told: bool = False
    """Whether this node had received SIGTERM."""
    is_port_taken: bool = False
    """Whether torchrun could not listen because another process has taken the port."""
    at: str = ""
    """ISO 8601, UTC."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: see above, and NOT_SHARED."""
    told: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        told.append(signum)

    signal.signal(signal.SIGTERM, note)
    # A SIGUSR1 for all steps would kill torchrun. What is ignored here is ignored by its children.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    args = _arguments(argv)
    name, number = node_name(os.environ), int(os.environ["SLURM_NODEID"])
    for proof in args.proof:
        if not seen(proof, args.shared_s) and not told:
            _say(_not_shared(proof, name, args.first))
            return NOT_SHARED
    if told:
        return 0
    command = torchrun(args, number, os.environ)
    log = args.folder / "logs" / f"{args.start}-{name}.log"
    size = log.stat().st_size if log.exists() else 0
    write_end(args.folder, args.start, args.attempt, number, NodeEnd(node=name))
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
        code = process.wait()
    end = NodeEnd(
        node=name,
        exit_code=code,
        was_told=bool(told),
        is_port_taken=code != 0 and not told and _has(log, size, PORT_TAKEN),
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    write_end(args.folder, args.start, args.attempt, number, end)
    return 0 if told else 128 - code if code < 0 else code


def node_name(env: Mapping[str, str]) -> str:
    return env.get("SLURMD_NODENAME") or socket.gethostname()


def seen(proof: Path, patience_s: float) -> bool:
    """Whether a file that the first node has written can be seen here, in time."""
    end = time.monotonic() + patience_s
    while not proof.exists():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def torchrun(args: argparse.Namespace, number: int, env: Mapping[str, str]) -> list[str]:
    """torchrun's command line on node `number`, as `python -m`: a container may lack the script."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={args.nodes}"),
        *(f"--nproc-per-node={args.ranks}", f"--max-restarts={MAX_RESTARTS}"),
        f"--shutdown-timeout={args.shutdown_s}",
    ]
    if args.nodes == 1:
        command += ["--standalone", "--local-addr=127.0.0.1"]
    else:
        is_host = number == 0
        first = first_address(args.first, env)
        own = address_of_first(args.second, env) if is_host else outgoing(first) or first
        command += [
            *("--rdzv-backend=c10d", f"--rdzv-id={args.start}-{args.attempt}"),
            f"--rdzv-endpoint={own if is_host else first}:{args.port}",
            f"--rdzv-conf=is_host={int(is_host)},read_timeout={READ_TIMEOUT_S}",
            f"--local-addr={own}",
        ]
    return [*command, "-m", *args.words]


def first_address(name: str, env: Mapping[str, str]) -> str:
    """The address of the first node, as one of the others reaches it. That is where srun runs, so
    Slurm tells it; the node's name need not resolve."""
    launcher = env.get("SLURM_LAUNCH_NODE_IPADDR", "")
    return _remote(launcher) or _remote(resolved(name)) or launcher or "127.0.0.1"


def address_of_first(second: str, env: Mapping[str, str]) -> str:
    """The address of the first node, found there: that by which it reaches the second."""
    launcher = env.get("SLURM_LAUNCH_NODE_IPADDR", "")
    other = resolved(second)
    return (other and _remote(outgoing(other))) or _remote(launcher) or launcher or "127.0.0.1"


def resolved(name: str) -> str:
    """The IPv4 address of a machine; empty if its name has none."""
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_DGRAM)[0][4][0])
    except OSError:
        return ""


def outgoing(to: str) -> str:
    """The address of this machine on the way to another; empty if there is no way. Nothing is
    sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((to, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def write_end(folder: Path, start: str, attempt: int, number: int, end: NodeEnd) -> None:
    """Write how torchrun ended, in one piece."""
    file = folder / "nodes" / f"{start}-{attempt}-{number}.json"
    beside = file.with_suffix(".tmp")
    beside.write_text(json.dumps(asdict(end), indent=1) + "\n")
    beside.replace(file)


def read_ends(folder: Path, start: str, attempt: int, num_nodes: int) -> list[NodeEnd | None]:
    """How torchrun ended on each node; None: it has not begun there."""
    ends: list[NodeEnd | None] = []
    for number in range(num_nodes):
        try:
            text = (folder / "nodes" / f"{start}-{attempt}-{number}.json").read_text()
            ends.append(NodeEnd(**json.loads(text)))
        except FileNotFoundError:
            ends.append(None)
    return ends


def _remote(address: str) -> str:
    """The address, unless it means "this machine"."""
    return "" if address.startswith("127.") else address


def _has(log: Path, begin: int, words: str) -> bool:
    """Whether the words stand in what was appended to a log after byte `begin`."""
    with log.open("rb") as stream:
        stream.seek(begin)
        return words in stream.read().decode("utf-8", errors="replace").lower()


def _not_shared(proof: Path, name: str, first: str) -> str:
    return (
        f"{proof.parent.parent} is not shared between the nodes: {name} does not see what {first} "
        "wrote there; give output= (and slurm.folder, if you set it) on a disk that all nodes share"
    )


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m jobs.slurm.node", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the submission's")
    parser.add_argument("--proof", type=Path, action="append", required=True)
    parser.add_argument("--start", required=True, help="JOB[_ELEMENT]-RESTART")
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--first", required=True, help="name of the first node")
    parser.add_argument("--second", default="", help="name of the second node")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--shutdown-s", type=int, required=True)
    parser.add_argument("--shared-s", type=float, default=SHARED_S)
    parser.add_argument("words", nargs="+", help="module and arguments of the job")
    return parser.parse_args(argv)


if __name__ == "__main__":
    CODE = main()
    # Python, when it ends, takes its own handlers away: a late SIGTERM would be an error to srun.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(CODE)
