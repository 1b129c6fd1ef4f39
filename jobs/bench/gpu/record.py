"""What the benchmark has found so far. It is written anew, as JSON and Markdown, after every event,
so that a run that is cut off has lost nothing."""

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jobs.bench.gpu.clock import BEGIN
from jobs.bench.gpu.derive import derive
from jobs.bench.gpu.floors import Rates
from jobs.bench.gpu.models import BenchModel
from jobs.bench.gpu.targets import judged

Event = dict[str, Any]
"""Something found. `part` says where in the report it belongs: rates, checks, measurements, notes,
failures or left_out. It consists of what JSON knows."""


def failure(what: str, error: str, where: str = "") -> Event:
    return {"part": "failures", "what": what, "error": error, "where": where}


def left_out(what: str, why: str) -> Event:
    return {"part": "left_out", "what": what, "why": why}


@dataclass(slots=True, kw_only=True)
class Record:
    """The report as it grows."""

    about: dict[str, Any]
    """Card, date, versions, revision, time limit."""
    models: list[BenchModel]
    render: Callable[["Record"], str]
    """The Markdown text (jobs/bench/gpu/report.py)."""
    folder: Path | None = None
    """None: nothing is written."""
    warm_up: str = ""
    """How the kernels were compiled, in words."""
    rates: Rates | None = None
    checks: list[Event] = field(default_factory=list)
    measurements: list[Event] = field(default_factory=list)
    targets: list[Event] = field(default_factory=list)
    failures: list[Event] = field(default_factory=list)
    left_out: list[Event] = field(default_factory=list)
    notes: list[Event] = field(default_factory=list)
    """What the engine has logged, each message once for a model."""
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

    def take(self, events: Iterable[Event]) -> None:
        """Add events as they come, and write the report after each."""
        for event in events:
            its = dict(event)
            part = its.pop("part")
            if part == "rates":
                self.rates = Rates(**its)
            elif part == "notes" and any(note["key"] == its["key"] for note in self.notes):
                continue
            else:
                getattr(self, part).append(its)
            print(in_words(part, its), flush=True)
            self.save()

    def save(self) -> None:
        """Bring up to date what follows from the measurements, and write the report."""
        derive(self.models, self.measurements, self.rates)
        self.targets = judged(self.measurements, str(self.about["card"]))
        self.took_s = time.perf_counter() - BEGIN
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / f"{self.name}.json", json.dumps(self.as_dict(), indent=1) + "\n")
        _write(self.folder / f"{self.name}.md", self.render(self))

    def as_dict(self) -> dict[str, Any]:
        names = ("warm_up", "checks", "measurements", "targets", "failures", "left_out", "notes")
        return {
            "benchmark": "gpu",
            **self.about,
            "models": {model.name: model.as_dict() for model in self.models},
            "rates": None if self.rates is None else asdict(self.rates),
            **{name: getattr(self, name) for name in names},
            "took_s": self.took_s,
            "exit_code": self.exit_code,
        }


def in_words(part: str, its: Event) -> str:
    """A line that says what an event found."""
    if part == "measurements":
        ms = (its.get("block") or {}).get("ms")
        case = f"{its['title']}, {its['variant']}, B={its['batch']}, {its['committed']} per forward"
        found = [] if ms is None else [f"block {ms:.2f} ms"]
        speed = its["tokens_per_s"]
        return f"{case}: " + ", ".join(found + ([] if speed is None else [f"{speed:.0f} tokens/s"]))
    if part == "checks":
        return f"{its['check']}: {its['found']}" + ("" if its["holds"] else " - DOES NOT HOLD")
    if part == "failures":
        return f"{its['what']}: FAILED: {its['error']}"
    if part == "notes":
        return f"{its['what']}: {its['note']}"
    if part == "left_out":
        return f"{its['what']}: left out: {its['why']}"
    return ", ".join(f"{name} {value:.3g}" for name, value in its.items())


def _write(file: Path, text: str) -> None:
    """Put the text in place at once: a run that is killed meanwhile leaves the old file."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text)
    os.replace(beside, file)
