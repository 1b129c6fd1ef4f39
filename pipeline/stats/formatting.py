"""Writes figures for a person to read, and makes texts that come from rows safe to print."""

from typing import Any

from pipeline.stats.meter import CAUSES

CAUSE_NAMES = {
    "engine_s": "in the engine",
    "start_s": "starting",
    "plan_s": "planning",
    "load_s": "loading the model",
    "claim_s": "claiming parts",
    "read_s": "waiting for rows",
    "write_s": "writing parts",
    "idle_s": "other",
    "tail_s": "waiting for other workers at the end",
}
"""Where a worker's seconds go -> the words for it."""
UNITS = (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1))
STAND_IN = "No model ran (stand_in=true): each row holds the first tokens of its own prompt."
NOT_KEPT = "lost to a kill, failed, or replaced by retry_failed"
"""Why the results of query tokens were not kept."""
assert {*CAUSES, "tail_s"} == set(CAUSE_NAMES), "every cause of time needs a name"


def figures(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of each figure of a run, as dataset card, report and terminal show them."""
    return [
        *([("stand-in", STAND_IN)] if summary["stand_in"] else []),
        ("rows", f"{summary['num_rows_out']:,}"),
        ("failed", f"{summary['num_failed']:,}"),
        ("tokens (before EOS)", f"{summary['num_generated_tokens']:,}"),
        ("tokens/s", f"{number(summary['tokens_per_s'])} over the whole wall time"),
        ("rows/s", number(summary["rows_per_s"])),
        ("tokens/s of one worker's engine", number(summary["tokens_per_engine_s"])),
        ("tokens per forward", number(summary["tokens_per_forward"])),
        ("sequences per batch", number(summary["mean_sequences"])),
        ("prompt tokens", f"{summary['num_prompt_tokens']:,}"),
        ("query tokens", by_kind(summary["num_query_tokens"])),
        ("query tokens per token", number(summary["query_tokens_per_token"])),
        ("query tokens without use", _wasted(summary)),
        ("wall time", f"{duration(summary['wall_s'])}, including loading"),
        ("warm-up", _warm_up(summary)),
        ("workers' time", _shares(summary)),
        *_gpu_time(summary),
        *score_figures(summary["score"]),
    ]


def score_figures(score: dict[str, Any] | None) -> list[tuple[str, str]]:
    """(name, value) of each figure, of the rows that passed, and of the failures by kind."""
    if score is None:
        return []
    share = f"{score['num_passed']:,} of {score['num_rows']:,}"
    kinds = score["reasons"].items()
    failures = [f"{kind} {count:,}" for kind, count in kinds if kind != "passed"]
    missing = score["missing_parts"]
    return [
        *(
            (name, with_error(value, score["stderr"].get(name)))
            for name, value in score_values(score).items()
        ),
        ("passed", f"{share}, task {score['task']}"),
        ("failures by kind", ", ".join(failures) or "none"),
        *([("not scored", f"{missing:,} parts")] if missing else []),
    ]


def score_values(score: dict[str, Any]) -> dict[str, float]:
    """Name -> value of each pass@k and of the task's other figures."""
    return {f"pass@{k}": value for k, value in score["pass_at"].items()} | score["metrics"]


def with_error(value: float, stderr: float | None) -> str:
    """A figure and its standard error: 0.7500 ± 0.0100."""
    return f"{value:.4f}" if stderr is None else f"{value:.4f} ± {stderr:.4f}"


def worker_seconds(summary: dict[str, Any]) -> dict[str, float]:
    """Seconds of all workers together, by what they were spent on, largest first."""
    spent = {name: summary[cause] for cause, name in CAUSE_NAMES.items()}
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def by_kind(counts: dict[str, int]) -> str:
    total = f"{sum(counts.values()):,}"
    return total + "".join(f", {kind} {count:,}" for kind, count in sorted(counts.items()))


def number(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.2f}"


def short(value: float) -> str:
    """A number for the tick of a chart: 1.2M, 340k, 12, 0.25."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """In at most two units: 4.2 s, 42 s, 3 min 20 s, 5 h 12 min, 2 d 3 h."""
    whole = round(seconds)
    for big, small, size, small_size in UNITS:
        if whole >= size:
            return f"{whole // size} {big} {whole % size // small_size} {small}"
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    return f"{whole} s"


def one_line(text: str, length: int = 200) -> str:
    """The text on one line, cut to `length` characters, without unprintable characters: a text
    that comes from a row must not send control codes to a terminal."""
    start = text[: 4 * length]
    line = " ".join("".join(c if c.isprintable() else " " for c in start).split())
    return line if len(line) <= length and len(start) == len(text) else f"{line[:length]}..."


def _wasted(summary: dict[str, Any]) -> str:
    failed, lost = summary["num_failed_query_tokens"], summary["num_lost_query_tokens"]
    return (
        f"{failed:,} in forwards that ran out of memory, {lost:,} for results that were not kept "
        f"({NOT_KEPT})"
    )


def _warm_up(summary: dict[str, Any]) -> str:
    starts = max(1, summary["num_starts"])
    warm, load = summary["warm_up_s"] / starts, summary["load_s"] / starts
    return (
        f"{duration(warm)} from a worker's start to the end of its first forward, including "
        f"{duration(load)} to load the model"
    )


def _gpu_time(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """GPU hours, where Slurm has counted them."""
    hours = summary.get("gpu_hours")
    if hours is None:
        return []
    counted = f"{number(hours)} by Slurm's accounting, all starts with their loading included"
    return [
        ("GPU hours", counted),
        ("tokens per GPU hour", number(summary["tokens_per_gpu_hour"])),
    ]


def _shares(summary: dict[str, Any]) -> str:
    spent = worker_seconds(summary)
    total = sum(spent.values())
    shares = [f"{s / total:.0%} {name}" for name, s in spent.items() if s >= 0.01 * total > 0]
    return ", ".join(shares) or "none"
