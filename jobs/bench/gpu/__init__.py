"""How fast is the engine on a GPU, and how far is that from what the card allows?

`order.py`: the order of everything, and what becomes of the time
`steps.py`: what is done with one model; `worker.py`, `processes.py`: in a process of its own
`models.py`: the published shapes, with random weights
`checks.py`: the engine against plain torch and without graphs, a row alone and in batches
`kernel_checks.py`: every kernel against its reference, at a model's widths
`ceilings.py`: the card's own rates
`floors.py`: what a forward must take at those rates
`measure.py`: iterations and tokens per second of the real engine
`profile.py`: kernels by time, the card's busy time, experts that are read
`derive.py`, `targets.py`: floors, shares and idle time of the measurements; the targets
`record.py`, `report.py`: the report, written again after every event
`clock.py`: the time that is left
"""

from jobs.bench.gpu.order import FULL_S, QUICK_S, run

__all__ = ["FULL_S", "QUICK_S", "run"]
