"""This process's rank, its device, and how many CPU threads it may use.

Workers are data-parallel: each holds a whole model, and they share nothing but the counters and
values of the session (pipeline/workers/session.py). With engine.tensor_parallel=N, N ranks make up
one worker, and only these have a process group (pipeline/workers/groups.py).
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from engine.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One process of the job. `local_rank` and `local_world` count the processes of one machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    under_torchrun: bool = False

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def host(self) -> str:
        return socket.gethostname()


def this_worker(env: Mapping[str, str] = os.environ) -> Worker:
    """This process, from the variables that torchrun sets, or else those of an srun step; without
    either it is the only one."""
    if "RANK" in env:
        return Worker(
            rank=int(env["RANK"]),
            world=int(env.get("WORLD_SIZE", 1)),
            local_rank=int(env.get("LOCAL_RANK", 0)),
            local_world=int(env.get("LOCAL_WORLD_SIZE", 1)),
            under_torchrun="TORCHELASTIC_RUN_ID" in env,
        )
    # SLURM_PROCID does not tell: a batch script has it too, but is one process. Only a step that
    # srun started has several tasks.
    world = int(env.get("SLURM_STEP_NUM_TASKS", 1))
    if world == 1:
        return Worker()
    return Worker(
        rank=int(env["SLURM_PROCID"]),
        world=world,
        local_rank=int(env["SLURM_LOCALID"]),
        local_world=int(env["SLURM_STEP_TASKS_PER_NODE"].split("(")[0].split(",")[0]),
    )


def device_of(worker: Worker) -> torch.device:
    """The GPU of this rank, or the CPU if the machine has no GPU.

    Raises:
        UserError: this machine has fewer GPUs than ranks.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    num_gpus = torch.cuda.device_count()
    if worker.local_rank >= num_gpus:
        raise UserError(
            f"{worker.local_world} workers on {worker.host}, which has {num_gpus} GPUs: "
            f"start torchrun with --nproc-per-node={num_gpus}, or, to compute on the CPU, set "
            "CUDA_VISIBLE_DEVICES to nothing"
        )
    device = torch.device("cuda", worker.local_rank)
    torch.cuda.set_device(device)
    return device


def cpu_threads(worker: Worker, requested: int | None, env: Mapping[str, str] = os.environ) -> int:
    """Threads for torch: the config's `threads` (`requested`), else OMP_NUM_THREADS, else this
    rank's share of the cores.

    OMP_NUM_THREADS=1 is ignored if torchrun started several ranks on this machine: torchrun sets it
    itself if the user has not. `threads=1` still gives one thread.
    """
    if requested is not None:
        return requested
    of_omp = env.get("OMP_NUM_THREADS", "").split(",")[0]
    is_torchruns = of_omp == "1" and worker.under_torchrun and worker.local_world > 1
    if of_omp.isdigit() and int(of_omp) > 0 and not is_torchruns:
        return int(of_omp)
    return max(1, len(os.sched_getaffinity(0)) // worker.local_world)
