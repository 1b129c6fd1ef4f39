"""Runs a benchmark: `python -m jobs.bench engine`, `frontier`, `load`, `job`, `host` or `gpu`.

Every benchmark also checks the output that its figures are about: token ids, pass@1, loaded values
or rows. The last line of stdout is the report as one JSON document.

Only the chosen benchmark is imported: `gpu` needs neither Parquet nor a job's other libraries.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from engine.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.bench", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, (title, add_arguments) in BENCHMARKS.items():
        command = commands.add_parser(name, help=title)
        if sys.argv[1:2] == [name]:
            add_arguments(command)
    arguments = vars(parser.parse_args())
    try:
        report = arguments.pop("run")(**arguments)
    except UserError as error:
        sys.exit(str(error))
    print(json.dumps(report))
    if report.get("exit_code"):
        sys.exit(report["exit_code"])


def _engine(command: argparse.ArgumentParser) -> None:
    from jobs.bench import engine
    from jobs.bench.lockstep import LOCKSTEP_CACHES

    _add_workload(command)
    command.add_argument(
        "--rounds", type=int, default=3, help="rounds of lock-step and engine, alternating"
    )
    command.add_argument(
        "--batches",
        type=int,
        nargs="+",
        default=list(engine.BATCHES),
        help="sequences at once to try, for the best of each",
    )
    command.add_argument("--trial-rows", type=int, default=96, help="prompts to try them with")
    command.add_argument("--cache", choices=LOCKSTEP_CACHES, help="default: dual, or block_causal")
    command.add_argument(
        "--llada-rows", type=int, default=32, help="prompts for LLaDA's own loop, which is slow"
    )
    command.set_defaults(run=engine.run)


def _frontier(command: argparse.ArgumentParser) -> None:
    from engine.cache import CACHE_POLICIES
    from engine.decoding import DECODERS
    from jobs.bench import frontier
    from jobs.bench.provenance import RESULTS

    _add_workload(command)
    command.add_argument(
        "--caches", nargs="+", choices=CACHE_POLICIES, default=list(CACHE_POLICIES)
    )
    command.add_argument("--decoders", nargs="+", choices=DECODERS, default=list(DECODERS))
    command.add_argument("--plot", type=Path, default=RESULTS / "frontier.png", help="PNG to write")
    command.add_argument(
        "--processes", type=int, default=1, help="points measured at the same time"
    )
    command.set_defaults(run=frontier.run)


def _load(command: argparse.ArgumentParser) -> None:
    from jobs.bench import load
    from jobs.bench.synthetic import RAW_CONFIGS

    command.add_argument(
        "--gigabytes", type=float, default=2.0, help="size of the checkpoint, in bfloat16"
    )
    command.add_argument("--families", nargs="+", choices=RAW_CONFIGS, default=list(RAW_CONFIGS))
    dtypes = ["bfloat16", "float32"]
    command.add_argument(
        "--dtypes", nargs="+", choices=dtypes, default=dtypes, help="of the loaded model"
    )
    command.add_argument("--rounds", type=int, default=5, help="loads with the files cached")
    command.add_argument("--folder", type=Path, default=None, help="where to write the checkpoint")
    command.set_defaults(run=load.run)


def _job(command: argparse.ArgumentParser) -> None:
    from jobs.bench import job

    command.add_argument("--rows", type=int, default=1_000_000)
    command.add_argument("--part-rows", type=int, default=10_000)
    command.add_argument("--workers", type=int, default=2)
    command.add_argument("--chat", action="store_true", help="apply the chat template to prompts")
    command.set_defaults(run=job.run)


def _host(command: argparse.ArgumentParser) -> None:
    from jobs.bench import host

    command.add_argument(
        "--before", default=None, help="revision or folder of a checkout to compare with"
    )
    command.add_argument("--batches", type=int, nargs="+", default=list(host.BATCHES))
    command.add_argument("--iterations", type=int, default=200, help="of each case and round")
    command.add_argument("--rounds", type=int, default=3, help="processes, alternating")
    command.set_defaults(run=host.run)


def _gpu(command: argparse.ArgumentParser) -> None:
    from jobs.bench import gpu
    from jobs.bench.gpu.models import TITLES
    from jobs.bench.provenance import RESULTS

    command.add_argument(
        "--quick", action="store_true", help="three models, batches of 1 and 32, one speed"
    )
    command.add_argument("--models", nargs="+", choices=TITLES, help="default: all, or three")
    command.add_argument(
        "--seconds",
        type=float,
        help=f"end in good order after so long (default: {gpu.FULL_S:.0f}, or {gpu.QUICK_S:.0f})",
    )
    command.add_argument("--out", type=Path, default=RESULTS, help="folder for the report")
    command.add_argument(
        "--workers", type=int, help="processes that compile kernels (default: one a core)"
    )
    command.set_defaults(run=gpu.run)


def _add_workload(command: argparse.ArgumentParser) -> None:
    from jobs.bench.workload import DEMO, PROMPTS

    command.add_argument("--model", type=Path, default=DEMO, help="checkpoint folder")
    command.add_argument(
        "--prompts", type=Path, default=PROMPTS, help="Parquet file with HumanEval's columns"
    )
    command.add_argument("--rows", type=int, default=None, help="use only the first rows")
    command.add_argument("--max-sequences", type=int, default=32, help="sequences at once")
    command.add_argument("--max-new-tokens", type=int, default=128)
    command.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    command.add_argument("--device", default=None, help="default: cuda if there is one, else cpu")


BENCHMARKS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "engine": ("the engine against LLaDA's loop and lock-step", _engine),
    "frontier": ("quality against speed, for every combination", _frontier),
    "load": ("memory and speed of loading a checkpoint", _load),
    "job": ("a whole job, with a stand-in for the engine", _job),
    "host": ("what the host does in an iteration", _host),
    "gpu": ("the engine on a GPU, against what the card allows; no weights needed", _gpu),
}


if __name__ == "__main__":
    main()
