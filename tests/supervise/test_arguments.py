"""The command line of a job's supervisor."""

from jobs.slurm import supervise


def test_what_stands_behind_two_dashes_is_the_jobs() -> None:
    args, words = supervise.arguments(["runs/a", "--finish", "--", "conf=demo", "--", "-x"])
    assert (args.run, args.finish, words) == ("runs/a", True, ["conf=demo", "--", "-x"])
    args, words = supervise.arguments(["s3://b/a", "--"])
    assert (args.run, args.finish, words) == ("s3://b/a", False, [])
