"""What has Slurm done with a run? Its jobs, their starts, and what the cluster says of them.

    records.py     what a submission and each start leave in the run folder
    commands.py    Slurm's commands: one function each, errors that say what to do
    queue.py       what Slurm says now of jobs and elements of arrays
    view.py        the records of a run and what Slurm says, together
    accounting.py  the GPU hours that Slurm has counted

`jobs/` submits, starts and cancels; `pipeline.status` and the report read.
"""
