"""Makes timelines like those that workers write; parses report.html to check its structure."""

from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa

from pipeline.run_folder.layout import RunFolder
from pipeline.stats.timeline import TIMELINE_SCHEMA

VOID = {"meta"}


def points(
    rank: int, start: float, num_points: int, every_s: float = 2.0, **amounts: Any
) -> list[dict[str, Any]]:
    """The rows of a worker's points, which begin at `start` (seconds since 1970) and take `every_s`
    each. `amounts` replaces columns in all of them."""
    first = {"num_starts": 1, "load_s": 1.5, "warm_up_s": 2.5}
    return [
        {
            **{"rank": rank, "host": "h", "device": "cpu", "git_revision": "abc", "parts": {}},
            **(first if place == 0 else {}),
            **{"total_s": every_s, "engine_s": 0.75 * every_s, "num_iterations": 10},
            **{"num_ok": 4, "num_generated_tokens": 400, "num_forwards": {"block": 80}},
            **{"num_query_tokens": {"block": 900, "refresh": 100}},
            **amounts,
            "finished_at": datetime.fromtimestamp(start + (place + 1) * every_s, UTC),
        }
        for place in range(num_points)
    ]


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TIMELINE_SCHEMA)


def write_timeline(folder: RunFolder, name: str, rows: list[dict[str, Any]]) -> None:
    folder.write_table(folder.timeline / f"{name}.parquet", table_of(rows))


class Page(HTMLParser):
    """Checks that elements are closed in the right order; collects tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attrs: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attrs += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attrs += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1:] == [tag], f"</{tag}> closes {self._open[-3:]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data
