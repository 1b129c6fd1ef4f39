"""Submit a job to Slurm: `python -m jobs.submit conf=humaneval model=llada_8b slurm=h100x8`.

Takes all that pipeline.run takes, and slurm=NAME and slurm.FIELD=VALUE. Checks the job, makes its
run folder, writes the batch script, submits it, and prints the job's id, how to watch it and how to
cancel it. slurm.dry_run=true prints the script instead. --help shows what can be chosen.
"""

import sys

from engine.errors import UserError
from jobs.slurm.submission import submit
from pipeline.run_folder.store import without_secrets
from pipeline.workers.last_words import bug_report


def main() -> None:
    try:
        raise SystemExit(submit(sys.argv[1:], sys.orig_argv))
    except UserError as error:
        print(f"jobs.submit: {without_secrets(str(error))}", file=sys.stderr)
    except KeyboardInterrupt:
        print("jobs.submit: interrupted (Ctrl-C)", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        print(f"jobs.submit: {bug_report(error)}", file=sys.stderr)
        raise SystemExit(1) from error
    raise SystemExit(1)


if __name__ == "__main__":
    main()
