"""`python -m pipeline.calibrate conf=NAME model=NAME` finds the fastest settings of a job that lose
nothing: it tries every cache with every decoding strategy and its thresholds on the first rows,
drops what others beat, draws quality against speed, and prints the commands of the fastest setting
here and of the one with the most tokens per forward, of those whose quality is within the asked
loss of one token per iteration.

It takes what pipeline.run takes. What you set of `decoding` and `cache` is kept, the rest is swept.
Quality is the score of the job's task; without a task, how far the answers agree with those of one
token per iteration. The model is loaded once. Each setting is an ordinary run in the output folder;
after an interruption, the same command goes on.

Exit code 0: done; 1: the job cannot be calibrated or was stopped; 130: Ctrl-C.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from engine.errors import UserError
from pipeline.calibrate.sweep import Sweep
from pipeline.calibrate.tell import said, write, write_job
from pipeline.launch.to_calibrate import Calibrated, to_calibrate
from pipeline.run_folder.store import without_secrets
from pipeline.tasks.judges import JudgeError
from pipeline.tasks.sandbox import SandboxError
from pipeline.workers.last_words import bug_report
from pipeline.workers.refusals import show

OWN = "--rows N, --within LOSS, --decoders A,B, --caches A,B, --full"


def main(argv: Sequence[str] | None = None) -> None:
    try:
        sweep = sweep_of(sys.argv[1:] if argv is None else argv)
        if sweep is None:
            return
        if sweep.asked.note:
            print(sweep.asked.note, file=sys.stderr, flush=True)
        if sweep.asked.config.dry_run:
            show("\n".join(planned(sweep)))
            return
        if not sweep.is_begun():
            write_job(sweep)
        outcome = sweep.run()
        lines, files = said(sweep, outcome), write(sweep, outcome)
        show("\n".join([*lines, *(f"written: {file}" for file in files)]))
    except KeyboardInterrupt:
        print("pipeline.calibrate interrupted (Ctrl-C); the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        is_told = isinstance(error, UserError | SandboxError | JudgeError)
        why = without_secrets(str(error)) if is_told else bug_report(error)
        print(f"pipeline.calibrate: {why}", file=sys.stderr)
        raise SystemExit(1) from error


def sweep_of(argv: Sequence[str]) -> Sweep | None:
    """The sweep of a command line; None with flags such as --cfg, after showing what they ask for.

    Raises:
        UserError: the command line is wrong, or the job cannot be calibrated.
    """
    args, asked = read(argv)
    if asked is None:
        return None
    return Sweep.of(
        asked,
        num_rows=args.rows,
        within=args.within,
        is_full=args.full,
        named=args.decoders is not None,
        tell=lambda line: print(line, flush=True),
    )


def read(argv: Sequence[str]) -> tuple[argparse.Namespace, Calibrated | None]:
    """The own options of a command line, and the job.

    Raises:
        UserError: the command line is wrong.
    """
    args, job = parser().parse_known_args(argv)
    if args.rows < 1:
        raise UserError(f"--rows {args.rows}: give at least 1")
    if not 0 <= args.within < 1:
        raise UserError(f"--within {args.within:g}: give 0 up to 1, such as 0.01 for one point")
    lists = (args.decoders, args.caches)
    decoders, caches = (None if its is None else its.split(",") for its in lists)
    try:
        asked = to_calibrate(job, decoders, caches)
    except UserError as error:
        if "no such flag" in str(error):
            raise UserError(f"{error}; pipeline.calibrate also has {OWN}") from error
        raise
    if asked is not None and not any(its.startswith("output=") for its in job):
        config = replace(asked.config, output=f"{asked.config.output}-calibration")
        asked = replace(asked, config=config)
    return args, asked


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.calibrate",
        usage="%(prog)s [GROUP=NAME | FIELD=VALUE ...] [options]",
        description=__doc__,
        epilog="What GROUP, NAME and FIELD may be: python -m pipeline.run --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--rows", type=int, default=256, help="first rows to try on (256)")
    made.add_argument(
        "--within", type=float, default=0.01, help="the loss of quality that is allowed (0.01)"
    )
    made.add_argument("--decoders", help="strategies to try, as A,B; default: all that fit")
    made.add_argument("--caches", help="cache policies to try, as A,B; default: all that fit")
    made.add_argument("--full", action="store_true", help="every setting on all rows")
    return made


def planned(sweep: Sweep) -> list[str]:
    """What a dry run says."""
    rungs = ", ".join(f"{rung.num_rows:,}" for rung in sweep.rungs)
    quality = sweep.asked.config.task or "agreement with one token per iteration"
    return [
        f"{sweep.output}: a dry run, nothing is written",
        f"  rows       rungs of {rungs}, at most",
        f"  quality    {quality}; within {sweep.within:g}",
        f"  reference  {sweep.reference.short}",
        f"  settings   {len(sweep.points)}:",
        *(f"    {point.short}" for point in sweep.points),
    ]


if __name__ == "__main__":
    main()
