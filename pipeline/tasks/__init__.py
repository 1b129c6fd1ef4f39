"""The tasks that `python -m pipeline.score` knows, by name: one file each."""

from pipeline.tasks import functions, humaneval
from pipeline.tasks.base import Task

TASKS: dict[str, Task] = {"functions": functions.TASK, "humaneval": humaneval.TASK}
