"""The batch job: prompts in Parquet, generations and statistics back in Parquet.

`run.py` tells the whole story and is the place to begin reading. Every other module and room
(package) answers one question, and imports only from floors below its own (pyproject.toml,
[tool.importlinter]):

    calibrate   which settings are the fastest that lose nothing, by runs of many
    ------------------------------------------------------------------------------------------
    run         generate all prompts of a job
    status      how far a run is, from its files
    score       which generations pass their tests
    compare     how runs differ: settings, speed, quality
    ------------------------------------------------------------------------------------------
    generate    keep an engine supplied with requests, and write its results
    report      summary, dataset card and report.html of a run
    ------------------------------------------------------------------------------------------
    plan        cut the input into parts once, and share the parts among the workers
    launch      from the command line to a JobConfig; the only room that imports Hydra
    failures    turn an exception into one clear message and an exit code
    ------------------------------------------------------------------------------------------
    input       which rows go in: files, schemas, ids, per-row settings
    prompt      from a row to the token ids of its prompt
    stats       what is counted while the job runs, and the progress line
    ------------------------------------------------------------------------------------------
    workers     the processes of a job: ranks, groups, shared values, shutdown, logs
    config      the settings of a job, as dataclasses that check themselves
    ------------------------------------------------------------------------------------------
    run_folder  the files of a run, on a disk or an object store
    tasks       how a generation becomes a program that is tested, and the sandbox that runs it
"""

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = Path(__file__).resolve().parent.parent


def _check_engine() -> None:
    """`python -m` and notebooks look for modules in the current folder first, so a user's own
    `engine` there would be taken for ours."""
    spec = find_spec("engine")
    found = (
        None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()))
    )
    if found == str(PACKAGES / "engine" / "__init__.py"):
        return
    message = (
        f"pipeline: `import engine` finds {found}, not {PACKAGES / 'engine'}: set PYTHONSAFEPATH=1 "
        "in the environment, or start from another folder"
    )
    if sys.argv[:1] == ["-m"]:  # python -m pipeline.run, about to import it
        sys.exit(message)
    raise ImportError(message)


_check_engine()
