"""HumanEval, for models that answer in prose and for those that continue the prompt."""

from pipeline.tasks.base import FUNCTION_COLUMNS, Task
from pipeline.tasks.functions import program

TASK = Task(FUNCTION_COLUMNS, program)
