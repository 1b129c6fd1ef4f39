"""What is a job, in settings? Dataclasses that check themselves, made from plain dicts.

Each value is checked once, here; behind this file it is only read. Hydra's part is in
pipeline/launch.py.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from engine.cache import CACHE_POLICIES
from engine.cache.base import CachePolicy
from engine.config import EngineConfig
from engine.decoding import DECODERS
from engine.decoding.base import DecodingStrategy
from engine.legal import check_components
from pipeline.config.from_dict import from_dict
from pipeline.config.template import fields_of
from pipeline.run_folder.files import place
from pipeline.tasks import TASKS

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which rows go in.

    Raises:
        ValueError: a field out of range.
    """

    path: str | list[str]
    """Files, folders or globs, one or a list: Parquet or JSON Lines (.jsonl, .json, also .gz), on
    disk or at any URL that fsspec opens, as hf://datasets/ORG/NAME/FILE.parquet."""
    where: str | None = None
    """Only the rows for which this holds: a polars SQL expression over the columns, as
    `length(prompt) < 2000 AND lang = 'py'`."""
    limit: int | None = None
    """The first rows only (of those that `where` takes), over the files in their order; null takes
    all."""
    id_column: str | None = None
    """The column that holds each row's id, text or whole numbers, none twice; null: FILE:ROW."""
    carry: list[str] | None = None
    """Input columns that go into the output unchanged; null carries all, but for a column that
    overrides and has the name of an output column, as `seed`."""
    part_rows: int = 32
    """Input rows of one part, which is one output file and what a kill can lose of each worker."""
    part_minutes: float | None = None
    """Instead, minutes in which one worker does a part: the first parts, of `part_rows`, are timed,
    and those behind them are multiples of them; null: all parts are of `part_rows`."""

    def __post_init__(self) -> None:
        if not self.path or (isinstance(self.path, list) and not all(self.path)):
            raise ValueError(
                f"data.path={self.path!r}: give a file, a folder, a glob or a list of them"
            )
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"data.limit={self.limit}: give at least 1, or null for all rows")
        for name in ("where", "id_column"):
            if getattr(self, name) == "":
                raise ValueError(f"data.{name}='': leave it null, or say what it is")
        if self.part_rows < 1:
            raise ValueError(f"data.part_rows={self.part_rows}: give at least 1")
        if self.part_minutes is not None and not 0 < self.part_minutes < float("inf"):
            raise ValueError(
                f"data.part_minutes={self.part_minutes}: give minutes above 0, or null, and all "
                "parts are of data.part_rows"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptConfig:
    """How a row becomes what the model reads.

    Raises:
        ValueError: a field out of range.
    """

    column: str = "prompt"
    """The column of text. Where it does not exist, `messages_column` is read."""
    messages_column: str = "messages"
    """The column of lists of {role, content}; always through the chat template."""
    chat: bool = True
    """Text goes through the checkpoint's chat template as one user turn; false: it goes in raw."""
    system: str | None = None
    """A system turn before every prompt."""
    template: str | None = None
    """Text around the row's columns: {COLUMN} is the text of a column, {prompt} that of `column`.
    {{COLUMN}} stays as {COLUMN}, and other braces are text."""

    def __post_init__(self) -> None:
        for name in ("column", "messages_column"):
            if not getattr(self, name):
                raise ValueError(f"prompt.{name}='': give the name of a column")
        if self.template is not None and not fields_of(self.template):
            raise ValueError(
                f"prompt.template={self.template!r}: names no column, so every row would be the "
                "same; write {prompt} or {COLUMN} where the row's text goes, or null"
            )
        if self.system is not None and not self.chat:
            raise ValueError(
                f"prompt.system={self.system!r} with prompt.chat=false: raw text has no system "
                "turn; put it into prompt.template, or set prompt.system=null"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationConfig:
    """What a row asks of the engine, where its own columns say nothing else (ColumnsConfig).

    Raises:
        ValueError: a field out of range, or two that contradict each other.
    """

    max_new_tokens: int = 128
    """Length of the generation region."""
    temperature: float = 0.0
    """0 is greedy."""
    num_samples: int = 1
    """Generations per row, each an output row with its own seed."""

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "num_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"generation.{name}={getattr(self, name)}: give at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(
                f"generation.temperature={self.temperature}: give 0 (greedy) or a positive number"
            )
        if self.num_samples > 1 and self.temperature == 0:
            raise ValueError(
                f"generation.num_samples={self.num_samples} with generation.temperature=0: all "
                "would be the same; set a temperature above 0, or num_samples=1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnsConfig:
    """Which input columns override the job for their row, where they exist and are not null.

    Raises:
        ValueError: a field out of range.
    """

    max_new_tokens: str | None = "max_new_tokens"
    """Instead of generation.max_new_tokens; null: the column of this name is none of ours."""
    temperature: str | None = "temperature"
    """Instead of generation.temperature."""
    num_samples: str | None = "num_samples"
    """Instead of generation.num_samples."""
    seed: str | None = "seed"
    """The seed of the row's first sample; the seeds of its others come from it alone."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) == "":
                raise ValueError(f"columns.{field.name}='': give the name of a column, or null")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """Which model.

    Raises:
        ValueError: a field out of range.
    """

    path: str
    """A folder, or a name on the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub; null is main."""
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("model.path='': give a folder, or a name on the hub")
        if self.dtype not in DTYPES:
            raise ValueError(f"model.dtype={self.dtype!r}: give one of {', '.join(DTYPES)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """The whole job.

    Raises:
        ValueError: a field out of range.
    """

    name: str | None = None
    """The ready job that was asked for with conf=NAME."""
    data: DataConfig
    prompt: PromptConfig
    generation: GenerationConfig
    columns: ColumnsConfig
    model: CheckpointConfig
    decoding: DecodingStrategy
    cache: CachePolicy
    engine: EngineConfig
    output: str
    """The run folder."""
    seed: int = 0
    """All randomness of the run: each generation's seed comes from it, row id and sample, unless
    the row has its own (columns.seed)."""
    task: str | None = None
    """How `python -m pipeline.score` judges the generations; null: they are not scored."""
    threads: int | None = None
    """CPU threads of one worker; null shares the cores among the workers of this machine."""
    max_failed_fraction: float = 0.5
    """Past this share of failed rows the job stops."""
    retry_failed: bool = False
    """Rows that failed in an earlier start are run again, and no others of the parts done."""
    stand_in: bool = False
    """No model: each row gets the first tokens of its own prompt back
    (pipeline/generate/stand_in.py), to try input, output and disk."""
    dry_run: bool = False
    """Plan, try the first rows, show a prompt and the lengths; write nothing."""
    shutdown_grace_s: float = 20.0
    """After SIGTERM, seconds in which a worker may finish the rows that it has begun."""
    progress_every_s: float = 30.0
    """Seconds between progress lines in a log; a terminal's line is renewed all the time."""

    def __post_init__(self) -> None:
        check_components(self.decoding, self.cache)
        if not self.output:
            raise ValueError("output='': give the run folder, as output=runs/NAME")
        place(self.output)
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads={self.threads}: give at least 1, or null")
        if self.task is not None and self.task not in TASKS:
            raise ValueError(f"task={self.task!r}: give one of {', '.join(TASKS)}, or null")
        if not 0 <= self.max_failed_fraction <= 1:
            raise ValueError(f"max_failed_fraction={self.max_failed_fraction}: give 0 to 1")
        if not 0 <= self.shutdown_grace_s < float("inf"):
            raise ValueError(f"shutdown_grace_s={self.shutdown_grace_s}: give 0 or more seconds")
        if not self.progress_every_s > 0:
            raise ValueError(f"progress_every_s={self.progress_every_s}: give a number above 0")


SECTIONS: dict[str, Any] = {
    "data": DataConfig,
    "prompt": PromptConfig,
    "generation": GenerationConfig,
    "columns": ColumnsConfig,
    "model": CheckpointConfig,
    "engine": EngineConfig,
}
COMPONENTS: dict[str, Mapping[str, Any]] = {"decoding": DECODERS, "cache": CACHE_POLICIES}
"""Sections that a `name` chooses a dataclass for."""


def job_config(raw: Mapping[str, Any]) -> JobConfig:
    """The job that nested plain dicts describe.

    Raises:
        ValueError: a field that does not exist, is missing, of the wrong type or out of range.
    """
    made: dict[str, Any] = {}
    for name in (*SECTIONS, *COMPONENTS):
        section = raw.get(name)
        if not isinstance(section, Mapping):
            raise ValueError(f"{name}={section!r}: a section of fields belongs here")
        if name in SECTIONS:
            made[name] = from_dict(SECTIONS[name], section, f"{name}.")
        else:
            made[name] = _component(name, section)
    return from_dict(JobConfig, {**raw, **made}, "")


def _component(section: str, raw: Mapping[str, Any]) -> Any:
    options = COMPONENTS[section]
    name = str(raw.get("name"))
    if name not in options:
        raise ValueError(f"{section}.name={name!r}: give one of {', '.join(sorted(options))}")
    settings = {key: value for key, value in raw.items() if key != "name"}
    return from_dict(options[name], settings, f"{section}.")


def as_dict(config: JobConfig) -> dict[str, Any]:
    """The nested plain dict that job_config makes this job from."""
    raw = asdict(config)
    for section, choices in COMPONENTS.items():
        chosen = type(getattr(config, section))
        name = next(name for name, cls in choices.items() if cls is chosen)
        raw[section] = {"name": name, **raw[section]}
    return raw
