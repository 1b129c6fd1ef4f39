"""Composes the page of a comparison, and writes it and the Markdown beside the runs."""

from collections.abc import Sequence
from pathlib import Path

from upath import UPath

from engine.errors import UserError
from pipeline.compare.quality import PASSED
from pipeline.compare.runs import Run
from pipeline.compare.tables import Comparison, as_markdown
from pipeline.report.charts import NUM_COLOURS
from pipeline.report.page import environment
from pipeline.report.scatter import Point, Scatter, scatter
from pipeline.run_folder import store
from pipeline.run_folder.files import Place, place
from pipeline.stats.formatting import number
from pipeline.stats.paired import mean_of

NAME_LENGTH = 80


def page(made: Comparison) -> str:
    """The whole page, self-contained."""
    first, *others = made.runs
    told = ", ".join(f"{run.mark} {run.address}" for run in others)
    about = [f"{told}, compared with {first.mark} {first.address}"]
    return rendered(
        title=f"{len(made.runs)} runs compared",
        about=about,
        notes=made.notes,
        charts=charts(made.runs),
        charts_note="The bars are a standard error to each side, of one run by itself; the table "
        "of quality has those of the differences.",
        tables=made.tables,
    )


def rendered(**values: object) -> str:
    """A page of tables and charts; `values` are what templates/compare.html names."""
    values = {"command": "", "charts_note": "", **values}
    return environment().get_template("compare.html").render(num_colours=NUM_COLOURS, **values)


def charts(runs: Sequence[Run]) -> list[Scatter]:
    """Quality against speed, of the runs that are scored."""
    made = []
    for title, name in (
        ("tokens per second, over the wall time", "tokens_per_s"),
        ("tokens per forward of a sequence", "tokens_per_forward"),
    ):
        points = [_point(run, name) for run in runs if _is_shown(run, name)]
        if chart := scatter(PASSED, f"and {title}", points, x_label=title):
            made.append(chart)
    return made


def _is_shown(run: Run, name: str) -> bool:
    return bool(run.quality.get(PASSED)) and run.summary[name] is not None


def _point(run: Run, name: str) -> Point:
    mean = mean_of(list(run.quality[PASSED].values()))
    x = run.summary[name]
    title = f"{run.label}: {PASSED} {mean.value:.4f}, {name} {number(x)}"
    return Point(x, mean.value, title, run.label, label=run.mark, error=mean.se)


def markdown(made: Comparison) -> str:
    lines = [f"# {len(made.runs)} runs compared", ""]
    lines += [f"- {run.mark} `{run.address}`" for run in made.runs]
    lines += ["", *as_markdown(made.tables)]
    lines += [f"- {note}" for note in made.notes]
    return "\n".join(lines).rstrip() + "\n"


def beside(runs: Sequence[Run]) -> Place:
    """Where a comparison is written, without the ending of its name: beside the first run, under
    the names of all, or of the first if these are too long together."""
    folder = runs[0].found.folder.path
    names = [run.found.folder.path.name for run in runs]
    name = "_vs_".join(names)
    if len(name) > NAME_LENGTH:
        name = f"{names[0][:NAME_LENGTH]}_vs_{len(names) - 1}_others"
    return folder.parent / name


def write(made: Comparison, output: str | None) -> list[Place]:
    """Write the page and the Markdown; returns where.

    Raises:
        UserError: `output` is in no folder.
        OSError: they cannot be written.
    """
    stem = beside(made.runs) if output is None else place(output)
    if isinstance(stem, Path) and not stem.absolute().parent.is_dir():
        raise UserError(f"--output {output}: its folder does not exist; make it first")
    return write_texts(stem, {"md": markdown(made), "html": page(made)})


def write_texts(stem: Place, texts: dict[str, str]) -> list[Place]:
    """Write STEM.ENDING for each ending; returns where."""
    written = []
    for ending, text in texts.items():
        file = stem.parent / f"{stem.name}.{ending}"
        if isinstance(file, UPath):
            data = text.encode("utf-8")
            store.write(file, lambda stream, data=data: stream.write(data))  # type: ignore[misc]
        else:
            file.write_text(text, encoding="utf-8")
        written.append(file)
    return written
