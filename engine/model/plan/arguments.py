"""Parses the arguments of `python -m engine.model.plan`, and turns them into the model and engine
settings to plan for."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from engine.config import EngineConfig
from engine.errors import UserError
from engine.model.config import ModelConfig
from engine.model.families import config_of
from engine.model.load import read_config, warn_of_long_canvases
from engine.model.plan.footprint import GB, Setup
from engine.model.plan.published import PUBLISHED
from engine.sequences import whole_blocks

DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The arguments of the command. Those that are engine settings have the defaults of
    conf/engine/gpu.yaml.

    Raises:
        UserError: an argument is out of range.
    """

    model: str
    gpu_memory_gb: float
    gpus: int = 1
    dtype: str = "bfloat16"
    prompt_tokens: int = 512
    max_new_tokens: int = 512
    canvas_tokens: int | None = None
    """None: prompt_tokens + max_new_tokens."""
    max_positions: int | None = None
    """The longest canvas (model.max_positions of a job). None: what the model was trained for."""
    memory_fraction: float = 0.8
    iteration_tokens: int = 16384
    page_size: int = 16
    logits_bytes: int = 2**31

    def __post_init__(self) -> None:
        names = ("gpu_memory_gb", "gpus", "prompt_tokens", "max_new_tokens", "canvas_tokens")
        for name in (*names, "max_positions"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"{name}={value}: give a number above 0")
        if self.dtype not in DTYPES:
            raise UserError(f"dtype={self.dtype}: give one of {', '.join(DTYPES)}")

    @property
    def gpu_bytes(self) -> int:
        return int(self.gpu_memory_gb * GB)


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Parse arguments of the form `name=value`.

    Raises:
        UserError: an argument is unknown, missing, or out of range.
    """
    types = {field.name: field.type for field in fields(Arguments)}
    known = f"the arguments are {', '.join(f'{name}=' for name in types)}"
    values: dict[str, Any] = {}
    for argument in argv:
        name, equals, text = argument.removeprefix("--").partition("=")
        if name not in types or not equals:
            raise UserError(f"{argument} is not an argument: {known}")
        try:
            values[name] = _value(types[name], text)
        except ValueError:
            kind = "a number" if types[name] is float else "a whole number"
            raise UserError(f"{argument}: give {kind}, as in {name}=8") from None
    for name in ("model", "gpu_memory_gb"):
        if name not in values:
            raise UserError(f"{name}= is missing: {known}")
    return Arguments(**values)


def make_setup(arguments: Arguments) -> Setup:
    """The model, engine settings and canvas length to plan for.

    Raises:
        UserError: the model is unknown, a setting is out of range, or the canvas is longer than
            the model supports.
    """
    model = read_model(arguments.model)
    warn_of_long_canvases(model, arguments.max_positions)
    model = model.with_positions(arguments.max_positions)
    num_tokens = arguments.canvas_tokens or arguments.prompt_tokens + arguments.max_new_tokens
    if num_tokens > model.max_positions:
        raise UserError(
            f"a canvas of {num_tokens} tokens exceeds the {model.max_positions} positions that "
            f"{arguments.model} {_limit(model, arguments)}: lower canvas_tokens, or prompt_tokens "
            f"and max_new_tokens{_more(model)}"
        )
    engine = EngineConfig(
        cache_tokens=None,
        memory_fraction=arguments.memory_fraction,
        iteration_tokens=arguments.iteration_tokens,
        page_size=arguments.page_size,
        logits_bytes=arguments.logits_bytes,
    )
    return Setup(
        model=model,
        dtype=getattr(torch, arguments.dtype),
        engine=engine,
        canvas_len=whole_blocks(num_tokens, model.block_length),
    )


def read_model(name: str) -> ModelConfig:
    """The ModelConfig of a published checkpoint, by its name in conf/model, or of a folder.

    Raises:
        UserError: `name` is neither a known published checkpoint nor a checkpoint's folder.
    """
    if name in PUBLISHED:
        hub_id, raw = PUBLISHED[name]
        return config_of(raw, hub_id)
    if Path(name).is_dir():
        return read_config(Path(name))
    raise UserError(
        f"model={name} is neither a checkpoint folder nor one of {', '.join(PUBLISHED)}"
    )


def _limit(model: ModelConfig, arguments: Arguments) -> str:
    return "was trained for" if arguments.max_positions is None else "is given by max_positions"


def _more(model: ModelConfig) -> str:
    """The other remedy, where config.json states more positions."""
    most = model.stated_positions or 0
    return f", or set max_positions={most} or less" if most > model.max_positions else ""


def _value(kind: object, text: str) -> str | float | int:
    if kind is str:
        return text
    return float(text) if kind is float else int(text)
