"""All settings of a job: dataclasses that are built from plain dicts and check their own values.

Every value is checked here once; other modules only read it. Composing the dicts with Hydra is in
pipeline/launch/.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from engine.cache import CACHE_POLICIES
from engine.cache.base import CachePolicy
from engine.config import OF_TRANSFORMERS, EngineConfig
from engine.decoding import DECODERS
from engine.decoding.base import DecodingStrategy
from engine.errors import UserError
from engine.from_dict import from_dict
from engine.legal import check_components
from pipeline.config.generation import ColumnsConfig as ColumnsConfig
from pipeline.config.generation import GenerationConfig as GenerationConfig
from pipeline.config.prompt import PromptConfig as PromptConfig
from pipeline.run_folder.files import place
from pipeline.run_folder.share import Share
from pipeline.tasks import TASKS
from pipeline.tasks.formats import FORMATS

DTYPES = ("float32", "bfloat16", "float16")
OF_DIFFUSION = ("confidence", "guidance")
"""Fields of GenerationConfig that an autoregressive model has no use for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which input rows the job reads, and how it cuts them into parts.

    Raises:
        UserError: a field out of range.
    """

    path: str | list[str]
    """One file, folder or glob, or a list of them: Parquet or JSON Lines (.jsonl, .ndjson, .json,
    each also .gz), on disk or at any URL that fsspec can open, for example
    hf://datasets/ORG/NAME/FILE.parquet. The folder of a finished run stands for its good rows."""
    where: str | None = None
    """Take only the rows for which this condition is true: a SQL expression over the columns, as
    polars understands it, for example `length(prompt) < 2000 AND lang = 'py'`."""
    limit: int | None = None
    """Take at most this many rows: the first that `where` takes, in the order of the files; null
    takes all."""
    id_column: str | None = None
    """The column with each row's id: unique text or whole numbers; null: the id is FILE:ROW."""
    carry: list[str] | None = None
    """Input columns to copy to the output unchanged; null carries all, except a `seed` or `row_id`
    that the output's own column of this name repeats."""
    part_rows: int | None = None
    """Input rows per part; null: chosen by the number of rows when the run begins, and then kept. A
    part is one output file; if a worker is killed, the parts that it has open are lost and run
    again."""
    part_minutes: float | None = None
    """How many minutes one worker should take for a part. The first parts have `part_rows` rows (32
    if that is null) and are timed; each later part joins several parts of that size; null: all
    parts have the same number of rows."""
    rename: dict[str, str] | None = None
    """Carried column -> its name in the output. All other settings use the input's names."""

    def __post_init__(self) -> None:
        if not self.path or (isinstance(self.path, list) and not all(self.path)):
            raise UserError(
                f"data.path={self.path!r}: give a file, a folder, a glob or a list of them"
            )
        if self.limit is not None and self.limit < 1:
            raise UserError(f"data.limit={self.limit}: give at least 1, or null for all rows")
        for name in ("where", "id_column"):
            if getattr(self, name) == "":
                raise UserError(f"data.{name}='': give a value, or null")
        for old, new in (self.rename or {}).items():
            if not new:
                raise UserError(f"data.rename: {old!r} gets the name ''; give it a name")
        if self.part_rows is not None and self.part_rows < 1:
            raise UserError(
                f"data.part_rows={self.part_rows}: give at least 1, or null to let the plan choose"
            )
        if self.part_minutes is not None and not 0 < self.part_minutes < float("inf"):
            raise UserError(
                f"data.part_minutes={self.part_minutes}: give minutes above 0, or null to make all "
                "parts data.part_rows long"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """Which model checkpoint to run, and in which precision.

    Raises:
        UserError: a field out of range.
    """

    path: str
    """A folder, or a name on the Hugging Face hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub; null: main."""
    dtype: str = "float32"
    """float32, bfloat16 or float16."""
    max_positions: int | None = None
    """The longest canvas, prompt and answer together: a longer prompt is its row's error. null:
    what the model was trained for (2048 for Dream, whatever its config.json says; else what
    config.json says). More than that, up to what config.json says, is taken with a warning."""

    def __post_init__(self) -> None:
        if not self.path:
            raise UserError("model.path='': give a folder, or a name on the hub")
        if self.max_positions is not None and self.max_positions < 1:
            raise UserError(
                f"model.max_positions={self.max_positions}: give at least 1, or null for the "
                "context that the model was trained for"
            )
        if self.dtype not in DTYPES:
            raise UserError(f"model.dtype={self.dtype!r}: give one of {', '.join(DTYPES)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """All settings of one job.

    Raises:
        UserError: a field out of range.
    """

    name: str | None = None
    """The ready job that was chosen with conf=NAME."""
    data: DataConfig
    prompt: PromptConfig
    generation: GenerationConfig
    columns: ColumnsConfig
    model: CheckpointConfig
    decoding: DecodingStrategy
    cache: CachePolicy
    engine: EngineConfig
    output: str
    """The run folder: a local path, s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or
    az://CONTAINER/FOLDER."""
    seed: int = 0
    """The run's seed. Each generation's seed is derived from it, the row id and the sample index,
    unless the row has its own (columns.seed)."""
    task: str | None = None
    """The benchmark that `python -m pipeline.score` scores the generations with; null: none."""
    settings: str | None = None
    """Named settings for this ready job and model, such as those of the model's published scores:
    conf/settings/NAME.yaml. Fields on the command line come before them; null: none."""
    threads: int | None = None
    """CPU threads per worker; null: OMP_NUM_THREADS, else an equal share of the machine's cores."""
    max_failed_fraction: float = 0.5
    """The job fails if more than this fraction of its output rows fails. It stops early once that
    is true of the rows done so far."""
    retry_failed: bool = False
    """Also run again the rows that failed in parts that are done; their other rows are kept."""
    share: str | None = None
    """Do only the parts I, I + N, I + 2N, ..., given as I/N with I from 0. Launches with different
    I may work on one run folder at the same time. None of them writes the summary: a last launch
    without `share` does, and any parts that are missing. null: all parts."""
    stand_in: bool = False
    """Run without a model: each row gets the first tokens of its own prompt back
    (pipeline/generate/stand_in.py). This tests input, output and disk."""
    dry_run: bool = False
    """Plan, look at the run folder, prepare the first rows, show a prompt and the lengths; write
    nothing."""
    shutdown_grace_s: float = 20.0
    """Seconds after SIGTERM or a first Ctrl-C in which a worker may finish the rows that are in its
    engine."""
    progress_every_s: float = 30.0
    """Seconds between progress lines in a log. On a terminal, the line is updated every second."""

    @property
    def is_autoregressive(self) -> bool:
        """Whether transformers runs an autoregressive checkpoint (engine=transformers)."""
        return self.engine.backend == "transformers"

    def __post_init__(self) -> None:
        check_components(self.decoding, self.cache)
        for name in OF_DIFFUSION if self.is_autoregressive else ():
            if value := getattr(self.generation, name):
                raise UserError(
                    f"generation.{name}={value} with engine=transformers: does not apply to an "
                    "autoregressive model; leave it out"
                )
        if not self.output:
            raise UserError("output='': give the run folder, as output=runs/NAME")
        place(self.output)
        if self.threads is not None and self.threads < 1:
            raise UserError(f"threads={self.threads}: give at least 1, or null")
        if self.task is not None and self.task not in TASKS:
            raise UserError(f"task={self.task!r}: give one of {', '.join(TASKS)}, or null")
        if Share.of(self.share) and self.data.part_minutes is not None:
            raise UserError(
                f"share={self.share} with data.part_minutes={self.data.part_minutes:g}: parts "
                "whose size is found while the job runs cannot be divided before; give "
                "data.part_rows=N in place of data.part_minutes, or no share"
            )
        if not 0 <= self.max_failed_fraction <= 1:
            raise UserError(f"max_failed_fraction={self.max_failed_fraction}: give 0 to 1")
        if not 0 <= self.shutdown_grace_s < float("inf"):
            raise UserError(f"shutdown_grace_s={self.shutdown_grace_s}: give 0 or more seconds")
        if not self.progress_every_s > 0:
            raise UserError(f"progress_every_s={self.progress_every_s}: give a number above 0")


SECTIONS: dict[str, Any] = {
    "data": DataConfig,
    "prompt": PromptConfig,
    "generation": GenerationConfig,
    "columns": ColumnsConfig,
    "model": CheckpointConfig,
    "engine": EngineConfig,
}
COMPONENTS: dict[str, Mapping[str, Any]] = {"decoding": DECODERS, "cache": CACHE_POLICIES}
"""Sections whose `name` field selects the dataclass."""


def job_config(raw: Mapping[str, Any]) -> JobConfig:
    """Build the job from nested plain dicts, as Hydra composes them.

    Raises:
        UserError: a field does not exist, is missing, has the wrong type or is out of range.
    """
    made: dict[str, Any] = {}
    for name in (*SECTIONS, *COMPONENTS):
        section = raw.get(name)
        if not isinstance(section, Mapping):
            raise UserError(f"{name}={section!r}: give a section of fields")
        if name in SECTIONS:
            made[name] = from_dict(SECTIONS[name], section, f"{name}.")
        else:
            made[name] = _component(name, section)
    prompt, generation = made["prompt"], made["generation"]
    if generation.stop is None and prompt.format is not None:
        made["generation"] = replace(generation, stop=list(FORMATS[prompt.format].stop) or None)
    return from_dict(JobConfig, {**raw, **made}, "")


def _component(section: str, raw: Mapping[str, Any]) -> Any:
    options = COMPONENTS[section]
    name = str(raw.get("name"))
    if name not in options:
        raise UserError(f"{section}.name={name!r}: give one of {', '.join(sorted(options))}")
    settings = {key: value for key, value in raw.items() if key != "name"}
    return from_dict(options[name], settings, f"{section}.")


def as_dict(config: JobConfig) -> dict[str, Any]:
    """The inverse of job_config: the job as nested plain dicts. With engine=transformers, without
    what does not apply to it."""
    raw = asdict(config)
    if config.is_autoregressive:
        raw["engine"] = {name: raw["engine"][name] for name in OF_TRANSFORMERS}
        for name in OF_DIFFUSION:
            raw["generation"].pop(name)
            raw["columns"].pop(name, None)
        return {name: value for name, value in raw.items() if name not in COMPONENTS}
    for section, choices in COMPONENTS.items():
        chosen = type(getattr(config, section))
        name = next(name for name, cls in choices.items() if cls is chosen)
        raw[section] = {"name": name, **raw[section]}
    return raw
