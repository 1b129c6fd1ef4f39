"""What the benchmark has found so far. It is written anew, as JSON and Markdown, after every step,
so that a run that is cut off has lost nothing."""

import json
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jobs.bench.gpu.floors import Rates


@dataclass(slots=True, kw_only=True)
class Record:
    """The parts of the report. All but the rates consist of what JSON knows."""

    about: dict[str, Any]
    """Card, date, versions, revision, time limit, settings."""
    render: Callable[["Record"], str]
    """The Markdown text (jobs/bench/gpu/report.py)."""
    folder: Path | None = None
    """None: nothing is written."""
    compiled: dict[str, Any] = field(default_factory=dict)
    rates: Rates | None = None
    checks: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name: what the tables need to know of each model."""
    measurements: list[dict[str, Any]] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    took_s: float = 0.0

    @property
    def name(self) -> str:
        """Of the files, without suffix: date, card, and `quick` if it was."""
        card = "".join(c if c.isalnum() else "_" for c in str(self.about["card"])).strip("_")
        return f"{self.about['date']}_gpu_{card}" + ("_quick" if self.about.get("quick") else "")

    @property
    def exit_code(self) -> int:
        """1 if a check does not hold or something failed; what was left out for lack of time or
        memory is no failure."""
        return int(bool(self.failures) or not all(check["holds"] for check in self.checks))

    def as_dict(self) -> dict[str, Any]:
        names = ("compiled", "checks", "models", "measurements", "targets", "failures", "left_out")
        return {
            "benchmark": "gpu",
            **self.about,
            "took_s": self.took_s,
            "rates": None if self.rates is None else asdict(self.rates),
            **{name: getattr(self, name) for name in names},
            "exit_code": self.exit_code,
        }

    def leave_out(self, what: str, why: str) -> None:
        self.left_out.append({"what": what, "why": why})

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Do one step of the benchmark. If it fails, its error is part of the report and the rest
        goes on. The report is written after it either way."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 the report has it, and the exit code
            where = traceback.format_exc(limit=-4)
            self.failures.append({"what": what, "error": _first_words(error), "where": where})
            print(f"{what}: FAILED: {_first_words(error)}", flush=True)
        finally:
            self.save()

    def save(self) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / f"{self.name}.json", json.dumps(self.as_dict(), indent=1) + "\n")
        _write(self.folder / f"{self.name}.md", self.render(self))


def _first_words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def _write(file: Path, text: str) -> None:
    """Put the text in place at once: a run that is killed meanwhile leaves the old file."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text)
    os.replace(beside, file)
