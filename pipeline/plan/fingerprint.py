"""The fingerprint of a run: every setting and file that changes the output.

It must be the same for every launch into one run folder. Everything else may change between two
launches: the number of workers, how many sequences and pages the engine holds, how often progress
is reported, the limit on failures. Input files count by name and contents, model files by contents;
moving either changes nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.legal import opening_of
from engine.model.families import FAMILIES
from engine.model.load import read_config
from engine.text.templates import has_own_template
from pipeline.config.generation import ColumnsConfig
from pipeline.config.job import JobConfig, as_dict
from pipeline.input.files import WHOLE_BYTES, InputFile
from pipeline.run_folder.layout import RunFolder

FREE = {
    *("name", "output", "task", "threads", "max_failed_fraction", "progress_every_s"),
    *("retry_failed", "dry_run", "shutdown_grace_s", "share", "settings"),
    *("engine.max_sequences", "engine.iteration_tokens", "engine.cache_tokens"),
    *("engine.memory_fraction", "engine.page_size", "engine.logits_bytes"),
    *("engine.tensor_parallel", "engine.expert_parallel"),
    *("engine.kernels", "engine.batch_invariant", "engine.graphs"),
    *("data.path", "model.path", "model.revision"),
    "prompt.optional_keys",  # it decides only which rows fail
}
"""Settings that may change between launches."""
AS_BEFORE = {
    "decoding.remainder": "first",
    "engine.backend": "diffusion",
    "decoding.form": "paper",
    "decoding.counts_own": False,
    "prompt.add_bos": None,
    "prompt.format": None,
}
"""Settings that earlier versions did not have, and the values at which they do what these did."""
FAMILY_TEMPLATE = "chat template of the family"
TEMPLATES_AS_BEFORE = {"498f61c919abd439"}
"""Of the families' chat templates that earlier versions had: LLaDA-MoE's (hashes)."""
NOT_KEPT = {"engine.opening": "free (of Fast_dLLM_v2: first)"}
"""What it means that a fingerprint lacks a field."""
LATER_SETTINGS = ("top_k", "top_p", "confidence", "guidance", "stop")
"""Of the section `generation`: the first version did not have them. Without a value they change
nothing."""
LATER_COLUMNS = {
    field.name: field.default for field in fields(ColumnsConfig) if field.name in LATER_SETTINGS
}
"""Of the section `columns`, with their defaults."""


def fingerprint(
    config: JobConfig,
    files: list[InputFile],
    checkpoint: Path,
    revision: str | None,
    part_rows: int | None,
    prompt_columns: Sequence[str],
    overrides: Mapping[str, str],
) -> dict[str, Any]:
    """Name -> value of all that must stay the same; config fields are called SECTION.FIELD.
    `part_rows` is the value of data.part_rows or, if that is null, what the plan chose for it.
    `prompt_columns` are all columns that prompts are made of, `overrides` those that override
    settings (setting -> column)."""
    flat: dict[str, Any] = {}
    for section, value in as_dict(config).items():
        fields = value.items() if isinstance(value, dict) else [(None, value)]
        for name, setting in fields:
            flat[f"{section}.{name}" if name else section] = setting
    kept = {name: value for name, value in flat.items() if name not in FREE}
    # Fields that runs of earlier versions lack are left out where they change nothing.
    if (soft := kept.get("engine.soft")) and config.engine.soft.scope == "block":
        kept["engine.soft"] = {k: v for k, v in soft.items() if k != "scope"}
    for name, value in AS_BEFORE.items():
        if name in kept and kept[name] == value:
            del kept[name]
    if config.prompt.tools_column not in prompt_columns:
        del kept["prompt.tools_column"]
    if not config.prompt.keep:
        del kept["prompt.keep"]
    if not config.is_autoregressive:
        kept["generation.confidence"] = _confidence(config, checkpoint, overrides)
    for name in LATER_SETTINGS:
        if not kept.get(f"generation.{name}"):
            kept.pop(f"generation.{name}", None)
    for name, default in LATER_COLUMNS.items():
        if name not in overrides and kept.get(f"columns.{name}") in (None, default):
            kept.pop(f"columns.{name}", None)
    applied = _applied(config, checkpoint, prompt_columns)
    kept = {k: v for k, v in (kept | applied).items() if k not in applied or v is not None}
    if kept.get("cache.sub_block_cache"):
        kept["cache.sub_block_cache"] = "by the sub-block's first position"
    if (template := config.prompt.chat_template) and Path(template).expanduser().is_file():
        del kept["prompt.chat_template"]
        text = Path(template).expanduser().read_bytes()
        kept["chat template file"] = hashlib.sha256(text).hexdigest()[:16]
    where = f"{config.model.path}@{revision}" if revision else config.model.path
    return {
        **kept,
        "data.part_rows": part_rows,
        "input files": [_of_file(file) for file in files],
        "model files": f"{digest_of(checkpoint)} ({where})",
    }


def _applied(
    config: JobConfig, checkpoint: Path, prompt_columns: Sequence[str]
) -> dict[str, str | int | None]:
    """Settings of a diffusion model as they are applied to this checkpoint, None where that is what
    earlier versions did."""
    if config.is_autoregressive:
        return dict.fromkeys(("engine.opening", "model.max_positions"))
    return {
        "engine.opening": _opening(config, checkpoint),
        "model.max_positions": _max_positions(config, checkpoint),
        FAMILY_TEMPLATE: _family_template(config, checkpoint, prompt_columns),
    }


def _opening(config: JobConfig, checkpoint: Path) -> str | None:
    """engine.opening as it is applied; None where it is as in earlier versions, which had one rule
    for each kind of model."""
    model = read_config(checkpoint)
    applied = opening_of(model, config.engine, config.decoding)
    is_settled = model.is_shifted and model.block_length is not None
    return None if applied == ("first" if is_settled else "free") else applied


def _confidence(config: JobConfig, checkpoint: Path, overrides: Mapping[str, str]) -> str | None:
    """generation.confidence as it is used, None where it is as in the first version, which had only
    `raw`; or where it makes no difference, because no row is sampled or filtered."""
    settings = config.generation
    own = (settings.temperature, settings.top_k, settings.top_p)
    if not any(own) and not {"temperature", "top_k", "top_p"} & set(overrides):
        return None
    confidence = settings.confidence or read_config(checkpoint).rules.confidence
    return None if confidence == "raw" else confidence


def _max_positions(config: JobConfig, checkpoint: Path) -> int | None:
    """model.max_positions as it is applied; None where it is what config.json states, as in earlier
    versions."""
    model = read_config(checkpoint).with_positions(config.model.max_positions)
    stated = model.stated_positions or model.max_positions
    return None if model.max_positions == stated else model.max_positions


def _family_template(
    config: JobConfig, checkpoint: Path, prompt_columns: Sequence[str]
) -> str | None:
    """A hash of the family's chat template, where prompts go through it; None for one that is as in
    earlier versions."""
    prompt = config.prompt
    is_raw = not prompt.chat and (prompt.template is not None or prompt.column in prompt_columns)
    if is_raw or prompt.chat_template is not None or has_own_template(checkpoint):
        return None
    text = FAMILIES[read_config(checkpoint).family].CHAT_TEMPLATE
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return None if digest in TEMPLATES_AS_BEFORE else digest


def check_same(old: dict[str, Any], new: dict[str, Any], folder: RunFolder) -> None:
    """Check that the folder's run and this job have the same fingerprint.

    Raises:
        UserError: they differ; each field that does is named, with both values.
    """
    old = _in_present_terms(old)
    if names := differing(old, new):
        lines = [f"  {name}: {_shown(name, old)} there, {_shown(name, new)} now" for name in names]
        raise UserError(
            f"output={folder.path} holds a run with other settings:\n"
            + "\n".join(lines)
            + "\nGive another output, or use the settings of that run to resume it."
        )


def differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The fields that differ between two fingerprints."""
    old, new = _in_present_terms(old), _in_present_terms(new)
    names = dict.fromkeys([*old, *new])
    return [name for name in names if _compared(name, old) != _compared(name, new)]


def digest_of(checkpoint: Path) -> str:
    """A hash of the names and contents of a checkpoint's files. It does not depend on the folder's
    path. A file larger than WHOLE_BYTES counts by its size, its first MiB and its last MiB."""
    digest = hashlib.sha256()
    for file in sorted(p for p in checkpoint.iterdir() if p.is_file() and p.name[0] != "."):
        if file.suffix not in (".json", ".safetensors", ".jinja", ".txt", ".model"):
            continue
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        with file.open("rb") as stream:
            if size <= WHOLE_BYTES:
                digest.update(stream.read())
            else:
                digest.update(stream.read(1 << 20))
                stream.seek(-(1 << 20), 2)
                digest.update(stream.read())
    return digest.hexdigest()[:16]


def _in_present_terms(fields: dict[str, Any]) -> dict[str, Any]:
    """A fingerprint with the fields of this version. cache=vicinity had `warmup_iterations`, which
    counted all refreshes at the start of a sequence (and none was as one); `warmup` makes one
    more."""
    if "cache.warmup_iterations" not in fields:
        return fields
    kept = dict(fields)
    kept["cache.warmup"] = max(kept.pop("cache.warmup_iterations") - 1, 0)
    return kept


def _of_file(file: InputFile) -> str:
    """Name and contents, and what the names of its folders add to its rows."""
    keys = "".join(f", {key}={value}" for key, value in file.keys.items() if value is not None)
    return f"{file.name} ({file.num_rows} rows, {file.digest}{keys})"


def _compared(name: str, values: dict[str, Any]) -> Any:
    """What is compared of a field's value: of the model files the digest, without their path."""
    value = values.get(name)
    return value.split(" ")[0] if name == "model files" and value else value


def _shown(name: str, values: dict[str, Any]) -> str:
    text = str(NOT_KEPT.get(name, "not set") if values.get(name) is None else values[name])
    return text if len(text) <= 200 else f"{text[:200]}..."
