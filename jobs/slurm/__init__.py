"""How does Slurm run a job? From `python -m jobs.submit` to the torchrun on each node.

submission.py    checks a job, submits it, records it, says how to watch and to end it
checks.py        what can be told of a job before it is queued
environment.py   which variables of this shell the job gets
options.py       SlurmConfig as the options of sbatch
script.py        the batch script
cancellation.py  ends the jobs of a run for good
"""
