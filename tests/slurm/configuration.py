"""What a cluster for tests is like, and the files that make Slurm so."""

import random
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a cluster is like. Times are in seconds."""

    nodes: int = 2
    cpus: int = 4
    """CPUs that each node claims to have, whatever the host has."""
    gpus: int = 0
    """GPUs that each node claims to have."""
    cred_expire: int = 5
    """A requeued job starts again a second after this (on a cluster in the wild: two minutes)."""
    kill_wait: int = 5
    """From SIGTERM to SIGKILL when a job is cancelled or its time is up."""
    grace: int = 0
    """From SIGTERM to SIGKILL when a job in `main` is preempted."""
    preempt_signal: bool = True
    """Preemption sends the signal that a job asked for with --signal."""
    min_job_age: int = 600
    """For how long a job that has ended can be asked for."""
    slurmd_timeout: int = 300
    """A node that does not answer for this long is down."""


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on, below those that the kernel gives to whoever asks for any."""
    found: dict[int, socket.socket] = {}
    while len(found) < number:
        port = random.SystemRandom().randrange(12000, 32000)
        probe = socket.socket()
        try:
            probe.bind(("", port))
        except OSError:
            probe.close()
        else:
            found.setdefault(port, probe)
    for probe in found.values():
        probe.close()
    return list(found)


def epilog(folder: Path) -> str:
    """The program that runs on each node when a job has ended there."""
    program = Path(__file__).with_name("epilog.py")
    # exec: no shell that has the job's environment is left to be killed.
    return f"#!/bin/sh\nexec {sys.executable} -I -S {program} {folder}/slurm.conf\n"


def gres_conf(settings: Settings, folder: Path) -> str:
    """GPUs that are empty files."""
    last = settings.gpus - 1
    files = f"{folder}/gpus/[0-{last}]" if last else f"{folder}/gpus/0"
    return f"Name=gpu File={files}\n" if settings.gpus else ""


def slurm_conf(settings: Settings, folder: Path, nodes: Sequence[str]) -> str:
    """The configuration, without cgroups, accounting and long waits."""
    host = socket.gethostname().split(".")[0]
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    port, *node_ports = free_ports(1 + len(nodes))
    gpus = f" Gres=gpu:{settings.gpus}" if settings.gpus else ""
    machines = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} "
        f"CPUs={settings.cpus} RealMemory=16000 State=UNKNOWN{gpus}"
        for name, node_port in zip(nodes, node_ports, strict=True)
    )
    signals = "SlurmctldParameters=preempt_send_user_signal" if settings.preempt_signal else ""
    return f"""\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire={settings.cred_expire}
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
Epilog={folder}/epilog
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{signals}
SlurmdParameters=config_overrides
ReturnToService=0
JobRequeue=1
KillWait={settings.kill_wait}
MinJobAge={settings.min_job_age}
SlurmdTimeout={settings.slurmd_timeout}
SlurmctldTimeout=120
MessageTimeout=10
InactiveLimit=0
TreeWidth=65533
GresTypes=gpu
{machines}
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE \
GraceTime={settings.grace}
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""
