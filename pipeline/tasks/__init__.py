"""How is a generation tested? One file per task, and the sandbox that runs the tests.

`base.py`: what a task is.
`functions.py`, `humaneval.py`: the tasks, which `task=NAME` and `python -m pipeline.score` choose
from TASKS.
`extract.py`: which code of an answer is run. `pieces.py`: what may be code. `syntax.py`: what of it
is Python. `statements.py`: what of that a function needs. `body.py`: the body of the prompt's
function.
`sandbox.py`, `sandbox_child.py`: run one generated program under limits.
`trials.py`: run many. `pass_at_k.py`: pass@k from how many samples of each prompt passed.
"""

from pipeline.tasks import functions, humaneval
from pipeline.tasks.base import Task

TASKS: dict[str, Task] = {"functions": functions.TASK, "humaneval": humaneval.TASK}
