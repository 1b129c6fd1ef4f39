"""`python -m pipeline.status RUN` shows how much of a run is done, during it and after it stopped.

It also says who is at work on it; if nobody is, since when not, and which command resumes it. Of a
run that was submitted to Slurm it says what waits, runs or has stopped there, and why.
`--watch` repeats this until all parts are done, or nobody has been at work for a minute and no job
waits or runs; `--failed` lists the failed rows instead. Only the run's files are read and Slurm is
asked, so it also works on another machine that can read the folder. Exit code 0: all parts are
done; 1: some are not; 2: RUN is not a run, or cannot be read.
"""

import argparse
import sys
import time

from pipeline.plan.run_json import load
from pipeline.run_folder.files import exists
from pipeline.run_folder.layout import RunFolder
from pipeline.status.run_status import RunStatus
from pipeline.status.submitted import Planless
from pipeline.workers.refusals import show, why_not_read

WATCH_S = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="pipeline.status", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "run", help="the output of a run: a folder, or an address such as s3://BUCKET/FOLDER"
    )
    parser.add_argument("--watch", action="store_true", help="repeat until the run is done")
    parser.add_argument("--failed", action="store_true", help="list the failed rows")
    args = parser.parse_args()
    clear = "\x1b[2J\x1b[H" if args.watch and sys.stdout.isatty() else ""
    is_done = False
    try:
        folder = RunFolder(args.run)
        status = status_of(folder)
        while True:
            if isinstance(status, Planless) and status.is_planned:
                status = RunStatus(load(folder), folder)
            is_done = status.update()
            lines = status.failed_lines() if args.failed else status.lines()
            show(clear + "\n".join(lines))
            if is_done or not args.watch:
                break
            if status.is_abandoned():
                show("pipeline.status: nobody is at work on this run, so --watch ends")
                break
            time.sleep(WATCH_S)
    except Exception as error:
        print(f"pipeline.status: {why_not_read(error, args.run)}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        print()
    raise SystemExit(0 if is_done else 1)


def status_of(folder: RunFolder) -> RunStatus | Planless:
    """The status of a run that is planned, or of one that was submitted and is not planned yet.

    Raises:
        UserError: the folder holds no plan of this version, and nothing was submitted.
    """
    if not exists(folder.plan_file) and (waiting := Planless(folder)).is_submitted:
        return waiting
    return RunStatus(load(folder), folder)


if __name__ == "__main__":
    main()
