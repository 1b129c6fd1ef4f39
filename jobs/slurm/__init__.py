"""How does Slurm run a job? From `python -m jobs.submit` to the torchrun on each node.

On the machine that submits:

    submission.py    checks a job, submits it, records it, says how to watch and to end it
    job.py           one job on its way: its names, folder, options, script
    checks.py        what can be told of a job before it is queued
    environment.py   which variables of this shell the job gets
    options.py       SlurmConfig as the options of sbatch
    script.py        the batch script
    sbatch.py        hands it to Slurm; what a refusal means
    alive.py         which jobs of a run Slurm still has
    cancellation.py  ends the jobs of a run for good

On the nodes:

    supervise.py     sees one start of a job through, on its first node
    start.py         which start that is, and its records
    step.py          runs the job's workers on all nodes, and passes on Slurm's signals
    node.py          runs torchrun on one node
    cause.py         what interrupted a start, in words
    outcome.py       what becomes of the job then
    finisher.py      the small job behind an array
"""
