"""Builds what a worker needs before its first row: the prompter, the model, the engine and the
driver that connects them to the run's files."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.config import EngineConfig
from engine.engine import DiffusionEngine
from engine.errors import UserError
from engine.legal import check_model, opening_of
from engine.model.config import ModelConfig
from engine.model.families import FAMILIES
from engine.model.load import fetch_checkpoint, read_config
from engine.parallel import TensorParallel
from engine.stats import EngineStats
from engine.stops import TextOf
from engine.text.tokenizer import check_ids, check_tokens
from pipeline.autoregressive.checkpoint import load, read_checkpoint
from pipeline.config.job import JobConfig
from pipeline.generate.driver import Driver
from pipeline.generate.models import Models
from pipeline.generate.stand_in import StandIn
from pipeline.plan.retry import Remaining
from pipeline.plan.run_json import Plan
from pipeline.prompt.prompter import Prompter
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.meter import Meter
from pipeline.stats.progress import Tally
from pipeline.stats.versions import git_revision, library_versions
from pipeline.workers.ranks import Worker, cpu_threads, device_of
from pipeline.workers.session import Session
from pipeline.workers.shutdown import Shutdown

if TYPE_CHECKING:
    from pipeline.autoregressive.engine import TransformersEngine

log = logging.getLogger("pipeline")


def make_prompter(config: JobConfig, checkpoint: Path) -> Prompter:
    """The checkpoint's prompter, after a check that model, config and tokenizer fit together.

    Raises:
        UserError: they do not, or generation.max_new_tokens leaves no room for a prompt.
    """
    if config.is_autoregressive:
        about = read_checkpoint(checkpoint)
        max_positions, template, more = about.max_positions, None, ""
    else:
        model = read_config(checkpoint, config.model.max_positions)
        check_model(model, config.engine, config.cache)
        opening_of(model, config.engine, config.decoding)
        max_positions, template = model.max_positions, FAMILIES[model.family].CHAT_TEMPLATE
        more = more_positions(model)
    if config.generation.max_new_tokens >= max_positions:
        raise UserError(
            f"generation.max_new_tokens={config.generation.max_new_tokens}: leaves no room for a "
            f"prompt in the model's context of {max_positions}; lower it{more}"
        )
    prompter = Prompter(checkpoint, config.prompt, max_positions, template)
    if config.is_autoregressive:
        check_ids(prompter.tokenizer, about.vocab_size, checkpoint)
    else:
        check_tokens(prompter.tokenizer, model, checkpoint)
    return prompter


def more_positions(model: ModelConfig) -> str:
    """The other remedy for what exceeds the context, where config.json states a longer one."""
    is_shorter = (model.stated_positions or 0) > model.max_positions
    return ", or raise model.max_positions" if is_shorter else ""


def make_driver(
    config: JobConfig,
    plan: Plan,
    left: Remaining,
    folder: RunFolder,
    session: Session,
    parallel: TensorParallel,
    shutdown: Shutdown,
    models: Models | None = None,
) -> Driver:
    """Load the model, or this rank's share of it, and build the engine and the driver around it.
    `models` may hold it already, from a job before in this process."""
    worker, device = session.worker, device_of(session.worker)
    # Rounding can depend on the number of threads, and all ranks of a group must round alike.
    torch.set_num_threads(parallel.least(cpu_threads(worker, config.threads)))
    load_began = time.perf_counter()
    checkpoint = fetch_checkpoint(config.model.path, plan.model_revision or config.model.revision)
    prompter = make_prompter(config, checkpoint)
    engine: DiffusionEngine | TransformersEngine | StandIn = StandIn(prompter.text)
    if not config.stand_in:
        num_workers = worker.world // parallel.size
        engine_config = limit_to_share(config.engine, left.num_outcomes, num_workers)
        if config.is_autoregressive:
            engine = make_rival(config, plan, engine_config, checkpoint, device, prompter.text)
        else:
            text_of, kept = prompter.text, models or Models()
            engine = make_engine(config, engine_config, checkpoint, device, parallel, text_of, kept)
    log.info("rank %d of %d on %s, %s", worker.rank, worker.world, worker.host, device_name(device))
    meter = Meter(
        engine.stats,
        engine.page_bytes * parallel.size,  # each rank holds the same number of heads of a page
        writer_columns(worker, device, parallel, left.start, config.share),
        start_s=session.start_s,
        plan_s=load_began - session.began,
        load_s=time.perf_counter() - load_began,
    )
    return Driver(
        config,
        plan,
        folder,
        engine=engine,
        prompter=prompter,
        meter=meter,
        tally=make_tally(config, plan, left, session, engine.stats),
        session=session,
        shutdown=shutdown,
        writes=parallel.rank == 0,
    )


def make_tally(
    config: JobConfig, plan: Plan, left: Remaining, session: Session, engine_stats: EngineStats
) -> Tally:
    """This worker's progress counters. Rows of earlier starts count towards max_failed_fraction."""
    return Tally(
        session,
        left.num_outcomes,
        config.max_failed_fraction,
        engine_stats,
        num_before=plan.num_outcomes - left.num_outcomes,
        failed_before=left.num_failed,
    )


def make_rival(
    config: JobConfig,
    plan: Plan,
    engine_config: EngineConfig,
    checkpoint: Path,
    device: torch.device,
    text_of: TextOf,
) -> TransformersEngine:
    """The engine of engine=transformers, with the checkpoint's model.

    Raises:
        UserError: the checkpoint is at fault.
    """
    # Only here, because it takes a second and imports torch's compiler.
    from pipeline.autoregressive.engine import TransformersEngine

    return TransformersEngine(
        load(checkpoint, config.model.dtype, device),
        read_checkpoint(checkpoint),
        config=engine_config,
        text_of=text_of,
        may_sample=config.generation.temperature > 0 or "temperature" in plan.overrides,
    )


def make_engine(
    config: JobConfig,
    engine_config: EngineConfig,
    checkpoint: Path,
    device: torch.device,
    parallel: TensorParallel,
    text_of: TextOf,
    models: Models,
) -> DiffusionEngine:
    """`engine_config` takes the place of config.engine."""
    dtype = getattr(torch, config.model.dtype)
    model = models.load(checkpoint, dtype, device, parallel, config.model.max_positions)
    return DiffusionEngine(
        model,
        config=engine_config,
        decoding=config.decoding,
        cache=config.cache,
        text_of=text_of,
    )


def limit_to_share(config: EngineConfig, num_to_do: int, num_workers: int) -> EngineConfig:
    """Lower max_sequences to one worker's share of the rows that are left to do. Otherwise the
    first worker to start could take all rows into its engine, and others would be idle."""
    share = max(1, -(-num_to_do // num_workers))
    return replace(config, max_sequences=min(config.max_sequences, share))


def writer_columns(
    worker: Worker,
    device: torch.device,
    parallel: TensorParallel,
    start: int | None,
    share: str | None = None,
) -> dict[str, Any]:
    """The columns of a stats row that say which worker wrote it, for a group its first rank, and in
    which start and share."""
    name = device_name(device)
    return {
        "rank": worker.rank,
        "start": start,
        "share": share,
        "host": worker.host,
        "device": name if parallel.size == 1 else f"{parallel.size} x {name}",
        "versions": library_versions(),
        "git_revision": git_revision(),
    }


def device_name(device: torch.device) -> str:
    """The GPU's product name, or the number of CPU threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu ({threads} thread{'s' * (threads != 1)})"
