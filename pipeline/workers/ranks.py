"""Which worker is this, and where does it compute?

Workers are data-parallel: each holds a whole model and shares nothing with the others but a counter
(pipeline/workers/session.py). With engine.tensor_parallel=N, N ranks are one such worker, and only
they have a process group (pipeline/workers/groups.py).
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One process of the job. `local` counts the workers of one machine."""

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
    """From torchrun's variables, else from those of an srun step, else the only worker."""
    if "RANK" in env:
        return Worker(
            rank=int(env["RANK"]),
            world=int(env.get("WORLD_SIZE", 1)),
            local_rank=int(env.get("LOCAL_RANK", 0)),
            local_world=int(env.get("LOCAL_WORLD_SIZE", 1)),
            under_torchrun="TORCHELASTIC_RUN_ID" in env,
        )
    # A batch script has SLURM_PROCID too, but only a step that srun started has several tasks.
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
    """The worker's own GPU where there are any, else the CPU.

    Raises:
        ValueError: more workers on this machine than GPUs.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    num_gpus = torch.cuda.device_count()
    if worker.local_rank >= num_gpus:
        raise ValueError(
            f"{worker.local_world} workers on {worker.host}, which has {num_gpus} GPUs: "
            f"start torchrun with --nproc-per-node={num_gpus}, or, to compute on the CPU, set "
            "CUDA_VISIBLE_DEVICES to nothing"
        )
    device = torch.device("cuda", worker.local_rank)
    torch.cuda.set_device(device)
    return device


def cpu_threads(worker: Worker, asked: int | None, env: Mapping[str, str] = os.environ) -> int:
    """Threads that torch may use here: what was asked for, else this worker's share of the cores.

    torchrun sets OMP_NUM_THREADS=1 where nothing is set and it starts several workers, so there a
    1 says nothing; the config's `threads` asks for one thread all the same.
    """
    if asked is not None:
        return asked
    of_omp = env.get("OMP_NUM_THREADS", "").split(",")[0]
    is_torchruns = of_omp == "1" and worker.under_torchrun and worker.local_world > 1
    if of_omp.isdigit() and int(of_omp) > 0 and not is_torchruns:
        return int(of_omp)
    return max(1, len(os.sched_getaffinity(0)) // worker.local_world)
