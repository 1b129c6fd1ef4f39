"""How is a generation judged? One file per task, and the sandbox that runs programs.

`base.py`: what a task is.
`functions.py`, `humaneval.py`, `mbpp.py`, `livecodebench.py`, `cruxeval_o.py`, `gsm8k.py`,
`ifeval.py`: the tasks, which `task=NAME` and `python -m pipeline.score` choose from TASKS.
`extract.py`: which code of an answer is run. `pieces.py`: what may be code. `syntax.py`: what of it
is Python. `statements.py`: what of that a function needs. `body.py`: the body of the prompt's
function.
`sandbox.py`, `sandbox_child.py`: run one generated program under limits.
`hidden_tests.py`, `livecodebench_driver.py`: LiveCodeBench's tests, read and run.
`trials.py`: judges many rows. `judges.py`, `judging.py`: a process that judges them.
`pass_at_k.py`: pass@k from how many samples of each prompt passed. `figures.py`: means, their
standard errors, and tables.
"""

from pipeline.tasks import cruxeval_o, functions, gsm8k, humaneval, ifeval, livecodebench, mbpp
from pipeline.tasks.base import Task

TASKS: dict[str, Task] = {
    "functions": functions.TASK,
    "humaneval": humaneval.TASK,
    "mbpp": mbpp.TASK,
    "gsm8k": gsm8k.TASK,
    "cruxeval_o": cruxeval_o.TASK,
    "ifeval": ifeval.TASK,
    "livecodebench": livecodebench.TASK,
}
