"""The settings of a submission check themselves."""

import pytest

from engine.errors import UserError
from pipeline.config.slurm import SlurmConfig, slurm_config


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nodes": 0}, "slurm.nodes=0: give at least 1"),
        ({"gpus_per_node": -1}, "slurm.gpus_per_node=-1: give at least 0"),
        ({"time": "1 day"}, "slurm.time=1 day: give 24:00:00"),
        ({"time": "2"}, "slurm.time=2 with slurm.signal_s=120: workers would be told to"),
        ({"time": "0:30"}, "slurm.time=0:30 with slurm.signal_s=120"),
        ({"time": "0-00:02:00"}, "slurm.time=0-00:02:00 with slurm.signal_s=120"),
        ({"time": "1:00:00", "signal_s": 3600}, "slurm.time=1:00:00 with slurm.signal_s=3600"),
        ({"memory": "4 GB"}, "slurm.memory=4 GB: give 400G"),
        ({"after": "12,13"}, "slurm.after=12,13: give ids of jobs, as 123 or 123:124"),
        ({"partition": "  "}, "slurm.partition='  ': give text on one line"),
        ({"setup": ["a\nb"]}, "slurm.setup='a\\nb': give text on one line"),
        ({"env": ["A=b"]}, "slurm.env=A=b: give the name of a variable"),
        ({"container_runtime": "podman"}, "give pyxis or apptainer"),
        ({"cpus_per_gpu": 4, "cpus_per_node": 8}, "slurm.cpus_per_gpu=4 with cpus_per_node=8"),
        ({"cpus_per_gpu": 4, "gpus_per_node": 0}, "slurm.cpus_per_gpu=4 with no GPUs"),
        ({"array_at_once": 2}, "slurm.array_at_once=2: only with slurm.array"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(given: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as error:
        slurm_config(given)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "time", ["60", "2:01", "0:03:00", "24:00:00", "2-00", "2-00:00:00", "0", "UNLIMITED"]
)
def test_times_are_slurms(time: str) -> None:
    assert slurm_config({"time": time}).time == time


def test_ranks_are_the_gpus_unless_they_are_given() -> None:
    assert SlurmConfig(gpus_per_node=8).ranks == 8
    assert SlurmConfig(gpus_per_node=0).ranks == 1
    assert SlurmConfig(gpus_per_node=0, ranks_per_node=4).ranks == 4
