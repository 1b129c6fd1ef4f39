"""A job on Slurm: what is written into the batch script, and what runs on the nodes.

supervise.py  sees one start of a job through, on its first node
start.py      which start that is, and its records
step.py       runs the job's workers on all nodes, and passes on Slurm's signals
node.py       runs torchrun on one node
cause.py      what interrupted a start, in words
outcome.py    what becomes of the job then
finisher.py   the small job behind an array
"""
