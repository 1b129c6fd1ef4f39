"""How do benchmarks' own tools write the prompt of a row?

`base.py`: what a format is. One file per task. `examples.yaml`: examples of few-shot prompts.
`prompt.format=NAME` chooses from FORMATS. docs/benchmarks.md says whose they are.
"""

from pipeline.tasks.formats import cruxeval_o, gsm8k, humaneval, livecodebench, mbpp
from pipeline.tasks.formats.base import Format

FORMATS: dict[str, Format] = (
    humaneval.FORMATS | mbpp.FORMATS | gsm8k.FORMATS | cruxeval_o.FORMATS | livecodebench.FORMATS
)
