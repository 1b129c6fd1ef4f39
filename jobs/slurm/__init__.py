"""How does Slurm run a job? From `python -m jobs.submit` to the torchrun on each node.

On the machine that submits:

    submission.py    checks a job, submits it, records it, says how to watch and to end it
    job.py           one job on its way: its names, folder, options, script
    checks.py        what can be told of a job before it is queued
    environment.py   which variables of this shell the job gets
    options.py       SlurmConfig as the options of sbatch
    script.py        the batch script
    sbatch.py        calls sbatch, and explains what it refuses
    alive.py         which jobs of a run are queued or running
    cancellation.py  ends the jobs of a run for good
"""
