"""The scores of a run: scores.json, which `python -m pipeline.score` writes."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from pipeline.run_folder.files import exists, read_text
from pipeline.run_folder.layout import RunFolder


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
    identity: str = ""
    """Of the rows that were scored (pipeline/stats/starts.py); empty in runs of earlier versions,
    which did not write it."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

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
