"""Charts of points: everything stands where its values say."""

import pytest

from pipeline.report.page import environment
from pipeline.report.scatter import Point, Scatter, scatter
from tests.pipeline.stats.timelines import Page


def chart(points: list[Point], **more: float) -> Scatter:
    made = scatter("quality", "against speed", points, x_label="speed", **more)
    assert made is not None
    return made


def dot(x: float, y: float, **more: object) -> Point:
    return Point(x, y, f"{x} and {y}", "threshold", **more)  # type: ignore[arg-type]


def test_without_points_there_is_no_chart() -> None:
    assert scatter("a", "b", [], x_label="x") is None


def test_values_far_apart_are_on_a_logarithmic_axis() -> None:
    made = chart([dot(10, 0.5), dot(100, 0.5), dot(1000, 0.5)])
    left, middle, right = sorted(mark.x for mark in made.marks)
    assert middle - left == pytest.approx(right - middle)
    assert 0 < left < right < 100
    places = {tick.text: tick.place for tick in made.x_ticks}
    assert places["100"] == pytest.approx(middle / 100)
    assert list(places) == ["10", "20", "50", "100", "200", "500", "1k"]


def test_values_close_together_are_on_a_linear_axis() -> None:
    made = chart([dot(10, 0.5), dot(12, 0.5), dot(14, 0.5)])
    left, middle, right = sorted(mark.x for mark in made.marks)
    assert middle - left == pytest.approx(right - middle)
    places = {tick.text: tick.place for tick in made.x_ticks}
    assert places["12"] == pytest.approx(middle / 100)


@pytest.mark.parametrize("x", [0.0, 7.0])
def test_a_single_point_is_in_the_drawing(x: float) -> None:
    (mark,) = chart([dot(x, 1.0)]).marks
    assert 0 < mark.x < 100
    assert 0 < mark.y < 100


def test_y_counts_from_the_top_and_the_ticks_fit() -> None:
    made = chart([dot(1, 0.90), dot(2, 0.95)], level=0.92)
    low, high = sorted(made.marks, key=lambda mark: mark.x)
    assert low.y > made.level > high.y  # type: ignore[operator]
    place = {tick.text: 100 * tick.place for tick in made.y_ticks}
    assert place["0.9"] == pytest.approx(low.y)
    assert place["0.94"] == pytest.approx(low.y + 0.8 * (high.y - low.y))


def test_what_is_below_the_floor_is_drawn_on_it() -> None:
    made = chart([dot(1, 0.2, error=0.1), dot(2, 0.95), dot(3, 0.9)], floor=0.9)
    first, _, third = sorted(made.marks, key=lambda mark: mark.x)
    assert first.y == third.y
    assert first.bar is None, "its place is not its value"


def test_the_best_are_joined_from_left_to_right() -> None:
    best = [dot(3, 0.8, is_best=True), dot(1, 0.9, is_best=True), dot(2, 0.85, is_best=True)]
    made = chart([*best, dot(2, 0.7)])
    assert len(made.lines) == 2
    assert made.lines[0][2:] == made.lines[1][:2]
    assert made.lines[0][0] < made.lines[1][0] < made.lines[1][2]


def test_bars_reach_an_error_to_each_side() -> None:
    (mark,) = [its for its in chart([dot(1, 0.5, error=0.1), dot(2, 0.5)]).marks if its.bar]
    top, bottom = mark.bar  # type: ignore[misc]
    assert top < mark.y < bottom
    assert mark.y - top == pytest.approx(bottom - mark.y)


def test_shapes_and_colours_have_a_legend() -> None:
    points = [
        Point(1, 0.5, "", "threshold", "dual"),
        Point(2, 0.5, "", "factor", "dual"),
        Point(3, 0.5, "<b>", "factor", "</svg>"),
    ]
    made = chart(points)
    assert made.colours == {"threshold": 0, "factor": 1}
    assert list(made.shapes) == ["dual", "</svg>"]
    assert chart([dot(1, 0.5)]).shapes == {}, "one shape says nothing"
    html = (
        environment()
        .get_template("compare.html")
        .render(
            title="t",
            about=[],
            command="",
            notes=[],
            charts=[made],
            charts_note="",
            tables=[],
            num_colours=8,
        )
    )
    page = Page(html)
    assert "</svg>" in page.text
    assert "<b>" in page.text
