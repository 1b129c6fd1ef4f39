"""What a person sees of a run during it and after it stopped: `python -m pipeline.status RUN`.

run_status.py   the run's own files: what is done, failed and left, who is at work
workers.py      the workers at work, and the slowest of them
slurm_lines.py  a job that was submitted: what runs, waits, has stopped, and why
arrays.py       the same of an array
words.py        Slurm's words in plain ones
logs.py         the last lines of the log that tells why
"""
