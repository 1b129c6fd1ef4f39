"""Runs a benchmark: `python -m jobs.bench engine`, `frontier`, `load`, `job` or `host`.

Every benchmark also checks the output that its figures are about: token ids, pass@1, loaded values
or rows. The last line of stdout is the report as one JSON document.
"""

import argparse
import json
from pathlib import Path

from engine.cache import CACHE_POLICIES
from engine.decoding import DECODERS
from jobs.bench import engine, frontier, host, job, load
from jobs.bench.lockstep import LOCKSTEP_CACHES
from jobs.bench.synthetic import RAW_CONFIGS
from jobs.bench.workload import DEMO, PROMPTS, RESULTS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.bench", description=__doc__)
    commands = parser.add_subparsers(required=True)

    first = commands.add_parser("engine", help="the engine against LLaDA's loop and lock-step")
    _add_workload(first)
    first.add_argument(
        "--rounds", type=int, default=3, help="rounds of lock-step and engine, alternating"
    )
    first.add_argument(
        "--batches",
        type=int,
        nargs="+",
        default=list(engine.BATCHES),
        help="sequences at once to try, for the best of each",
    )
    first.add_argument("--trial-rows", type=int, default=96, help="prompts to try them with")
    first.add_argument("--cache", choices=LOCKSTEP_CACHES, help="default: dual, or block_causal")
    first.add_argument(
        "--llada-rows", type=int, default=32, help="prompts for LLaDA's own loop, which is slow"
    )
    first.set_defaults(run=engine.run)

    second = commands.add_parser("frontier", help="quality against speed, for every combination")
    _add_workload(second)
    second.add_argument("--caches", nargs="+", choices=CACHE_POLICIES, default=list(CACHE_POLICIES))
    second.add_argument("--decoders", nargs="+", choices=DECODERS, default=list(DECODERS))
    second.add_argument("--plot", type=Path, default=RESULTS / "frontier.png", help="PNG to write")
    second.add_argument("--processes", type=int, default=1, help="points measured at the same time")
    second.set_defaults(run=frontier.run)

    third = commands.add_parser("load", help="memory and speed of loading a checkpoint")
    third.add_argument(
        "--gigabytes", type=float, default=2.0, help="size of the checkpoint, in bfloat16"
    )
    third.add_argument("--families", nargs="+", choices=RAW_CONFIGS, default=list(RAW_CONFIGS))
    dtypes = ["bfloat16", "float32"]
    third.add_argument(
        "--dtypes", nargs="+", choices=dtypes, default=dtypes, help="of the loaded model"
    )
    third.add_argument("--rounds", type=int, default=5, help="loads with the files cached")
    third.add_argument("--folder", type=Path, default=None, help="where to write the checkpoint")
    third.set_defaults(run=load.run)

    fourth = commands.add_parser("job", help="a whole job, with a stand-in for the engine")
    fourth.add_argument("--rows", type=int, default=1_000_000)
    fourth.add_argument("--part-rows", type=int, default=10_000)
    fourth.add_argument("--workers", type=int, default=2)
    fourth.add_argument("--chat", action="store_true", help="apply the chat template to prompts")
    fourth.set_defaults(run=job.run)

    fifth = commands.add_parser("host", help="what the host does in an iteration")
    fifth.add_argument(
        "--before", default=None, help="revision or folder of a checkout to compare with"
    )
    fifth.add_argument("--batches", type=int, nargs="+", default=list(host.BATCHES))
    fifth.add_argument("--iterations", type=int, default=200, help="of each case and round")
    fifth.add_argument("--rounds", type=int, default=3, help="processes, alternating")
    fifth.set_defaults(run=host.run)

    arguments = vars(parser.parse_args())
    report = arguments.pop("run")(**arguments)
    print(json.dumps(report))


def _add_workload(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", type=Path, default=DEMO, help="checkpoint folder")
    command.add_argument(
        "--prompts", type=Path, default=PROMPTS, help="Parquet file with HumanEval's columns"
    )
    command.add_argument("--rows", type=int, default=None, help="use only the first rows")
    command.add_argument("--max-sequences", type=int, default=32, help="sequences at once")
    command.add_argument("--max-new-tokens", type=int, default=128)
    command.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    command.add_argument("--device", default=None, help="default: cuda if there is one, else cpu")


if __name__ == "__main__":
    main()
