"""`python -m jobs.cancel RUN` ends the jobs of a run that was submitted to Slurm, for good.

Parts that are done are kept; the same command as before submits what is left. Exit code 0: jobs
were cancelled; 1: none was queued or running, or RUN is no such run.
"""

import argparse
import sys

from engine.errors import UserError
from jobs.slurm.cancellation import cancel_run
from pipeline.workers.refusals import why_not_read


def main() -> None:
    about = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="jobs.cancel", description=about)
    parser.add_argument("run", help="the run folder: the job's output")
    args = parser.parse_args()
    try:
        raise SystemExit(cancel_run(args.run))
    except UserError as error:
        print(f"jobs.cancel: {error}", file=sys.stderr)
    except (OSError, ValueError) as error:
        print(f"jobs.cancel: {why_not_read(error, args.run)}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
