"""What jobs/slurm/ does at the end of a start, without a Slurm; with one: tests/slurm/."""
