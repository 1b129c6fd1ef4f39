"""`python -m pipeline.report RUN` writes the report of a run: of one that is finished, at work, or
broken, also of an earlier version. It reads only the run's files, and asks Slurm for the GPU hours
of one that was submitted there. What it cannot read, the report names.

The report goes to RUN/report.html, or to `--output FILE`. Exit code 0: it is written; 2: RUN holds
nothing of a run, or the report cannot be written.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from engine.errors import UserError
from pipeline.report.found import Found, check_is_run, read_run
from pipeline.report.page import report
from pipeline.report.summary import summarize
from pipeline.run_folder.layout import RunFolder
from pipeline.workers.refusals import show, why_not_read


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.report", description=__doc__)
    parser.add_argument("run", help="the output of a run: a folder, or s3://BUCKET/FOLDER")
    parser.add_argument("--output", help="file to write; default: RUN/report.html")
    args = parser.parse_args(argv)
    try:
        written, found = write(args.run, args.output)
    except Exception as error:
        print(f"pipeline.report: {why_not_read(error, args.run)}", file=sys.stderr)
        raise SystemExit(2) from error
    for gap in found.missing + found.faults:
        show(f"not in the report: {gap}")
    show(f"written: {written}")


def write(run: str, output: str | None = None) -> tuple[str, Found]:
    """Write the report of a run; returns where, and what the run was found to hold.

    Raises:
        UserError: the folder holds nothing of a run, or `output` is in no folder.
        OSError: the folder cannot be read, or the report cannot be written.
    """
    folder = RunFolder(run)
    check_is_run(folder)
    found = read_run(folder)
    html = report(found, summarize(found), f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    if output is None:
        folder.make()
        folder.write_text(folder.report_file, html)
    elif not Path(output).absolute().parent.is_dir():
        raise UserError(f"--output {output}: its folder does not exist; make it first")
    else:
        Path(output).write_text(html, encoding="utf-8")
    return output or str(folder.report_file), found


if __name__ == "__main__":
    main()
