"""`python -m jobs.bench engine`: what the engine gains, each figure behind a check of its output.

The last line of the output is one JSON document.
"""

import argparse
import json
from pathlib import Path

from jobs.bench.engine import DEMO, PROMPTS, run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.bench", description=__doc__)
    commands = parser.add_subparsers(required=True)
    engine = commands.add_parser("engine", help="the engine against LLaDA's loop and lock-step")
    engine.add_argument("--model", type=Path, default=DEMO, help="checkpoint folder")
    engine.add_argument("--prompts", type=Path, default=PROMPTS, help="HumanEval columns")
    engine.add_argument("--rows", type=int, default=None, help="the first rows only")
    engine.add_argument("--rounds", type=int, default=3, help="of lock-step and engine in turn")
    engine.add_argument("--max-sequences", type=int, default=32)
    engine.add_argument("--max-new-tokens", type=int, default=128)
    engine.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    engine.add_argument("--device", default=None, help="default: cuda if there is one, else cpu")
    engine.set_defaults(run=run)
    arguments = vars(parser.parse_args())
    report = arguments.pop("run")(**arguments)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
