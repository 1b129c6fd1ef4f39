"""`python -m pipeline.compare RUN RUN ...` compares runs with the first of them: their settings,
speed, scores (paired by prompt, with standard errors and McNemar's exact test) and answers.

It prints tables, and writes them as Markdown and as a page with charts, beside the first run or to
`--output FILE`, without its ending. It reads only the runs' files. Whatever keeps runs from being
compared as they are is said: other rows or data, unfinished runs, missing scores, failed rows.

Exit code 0: the comparison is written; 2: a run cannot be read, or the files cannot be written.
"""

import argparse
import sys
from collections.abc import Sequence

from pipeline.compare.page import write
from pipeline.compare.runs import read_runs
from pipeline.compare.tables import as_text, compare
from pipeline.workers.refusals import show, why_not_read


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", help="run folders, or addresses like s3://BUCKET/FOLDER")
    parser.add_argument(
        "--output", help="files to write, without .md and .html; default: beside the first run"
    )
    args = parser.parse_args(argv)
    try:
        made = compare(read_runs(args.runs))
        lines = [f"{run.mark} {run.address}" for run in made.runs]
        lines += ["", *as_text(made.tables)]
        lines += [f"note: {note}" for note in made.notes]
        lines += [f"written: {file}" for file in write(made, args.output)]
    except Exception as error:
        print(f"pipeline.compare: {why_not_read(error, args.runs[0])}", file=sys.stderr)
        raise SystemExit(2) from error
    show("\n".join(lines))


if __name__ == "__main__":
    main()
