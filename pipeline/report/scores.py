"""The scores of a run: scores.json, which `python -m pipeline.score` writes."""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pipeline.run_folder.files import exists, read_text
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.formatting import with_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What scoring found; all that scores.json holds."""

    task: str
    num_prompts: int
    num_rows: int
    """All output rows, failed ones too."""
    num_passed: int
    pass_at: dict[int, float]
    """k -> pass@k, the mean over all prompts."""
    reasons: dict[str, int]
    """Kind of outcome (see pipeline.tasks.trials.kind_of) -> rows, the most frequent first."""
    missing_parts: int
    """Parts that were not done yet; above 0 only with --partial."""
    has_network: bool
    """Some programs could reach the network, because the system does not allow cutting it off."""
    duration_s: float
    metrics: dict[str, float] = field(default_factory=dict)
    """The task's other figures -> their values."""
    stderr: dict[str, float | None] = field(default_factory=dict)
    """`pass@K` and the names in `metrics` -> standard error, clustered by prompt; null with a
    single prompt. Empty in runs of earlier versions."""
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What is tabled -> {category, value, stderr, num (values that it is the mean of)}."""
    identity: str = ""
    """Of the rows that were scored (pipeline/stats/starts.py); empty in runs of earlier versions,
    which did not write it."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    def figures(self) -> list[tuple[str, str]]:
        """(name, value with its standard error) of each figure, as they are shown."""
        named = {f"pass@{k}": value for k, value in self.pass_at.items()} | self.metrics
        return [(name, with_error(value, self.stderr.get(name))) for name, value in named.items()]

    def is_of(self, identity: str) -> bool:
        """Whether the rows of this identity were scored; rows may have been added or replaced
        since."""
        return self.identity in ("", identity)


def read_scores(folder: RunFolder) -> Scores | None:
    """The scores of the run; None if it has not been scored.

    Raises:
        ValueError, KeyError, TypeError: scores.json is damaged.
    """
    if not exists(folder.score_file):
        return None
    raw: dict[str, Any] = json.loads(read_text(folder.score_file))
    known = {field.name for field in fields(Scores)}
    made = {name: raw[name] for name in known & raw.keys()}
    made["pass_at"] = {int(k): value for k, value in raw["pass_at"].items()}
    return Scores(**made)
