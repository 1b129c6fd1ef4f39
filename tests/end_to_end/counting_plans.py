"""`-m tests.end_to_end.counting_plans FOLDER ARGS`: pipeline.run, which leaves a file in FOLDER for
each plan that it makes."""

import sys
import uuid
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline import run
from pipeline.launch import launch
from pipeline.plan.run_json import Plan

if __name__ == "__main__":
    folder = Path(sys.argv.pop(1))
    make = run.make_plan_of

    def counted(*args: Any) -> Plan:
        (folder / uuid.uuid4().hex).touch()
        return make(*args)

    with mock.patch.object(run, "make_plan_of", counted):
        launch(run.run)
