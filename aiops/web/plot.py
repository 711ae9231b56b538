"""Plots as numbers and paths for an SVG template: the values, the band in which they were expected, and what happened when.

Pure. The page needs no drawing script, the plot is in the HTML, and a screen reader gets a sentence instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from aiops.humanise import duration, quantity, utc
from aiops.web.scale import Scale, time_ticks, value_range, value_ticks

JSON = dict[str, Any]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560.0, 200.0, 76.0, 10.0, 12.0, 26.0
SPARK_WIDTH, SPARK_HEIGHT = 240.0, 48.0
MOST_POINTS = 600


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened: an action, an outcome. `kind` is its CSS class."""

    at: float
    text: str
    kind: str = "action"


@dataclass(frozen=True, slots=True)
class Row:
    """One point; what is not known is NaN."""

    at: float
    value: float
    expected: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Plot:
    """Everything that the template draws, in the units of the viewBox."""

    entity: str
    signal: str
    width: float
    height: float
    frame: tuple[float, float, float, float]
    line: str
    band: str
    middle: str
    anomaly: tuple[float, float] | None
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    marks: tuple[tuple[float, Mark], ...]
    summary: str
    latest: str = ""
    lowest: str = ""
    highest: str = ""

    @property
    def span(self) -> str:
        """Between what the values moved, with the unit once: `was 14 to 754 ms`."""
        low, _, unit = self.lowest.partition(" ")
        shown = low if unit and self.highest.endswith(f" {unit}") else self.lowest
        return "unchanged" if self.lowest == self.highest else f"was {shown} to {self.highest}"


def rows(points: Sequence[JSON]) -> list[Row]:
    """Points of the HTTP form, in order of time."""
    made = [Row(float(p["at"]), *(_float(p.get(k)) for k in ("value", "expected", "lower", "upper"))) for p in points]
    return sorted((r for r in made if math.isfinite(r.at)), key=lambda r: r.at)


def draw(entity: str, signal: str, unit: str, points: Sequence[Row], since: float | None = None, until: float | None = None,
         marks: Sequence[Mark] = ()) -> Plot | None:
    """A full plot, or None when there is nothing to draw. since/until: the time in which the signal was wrong."""
    values = [r.value for r in points if math.isfinite(r.value)]
    if len(values) < 2:
        return None
    points = _thinned(points)
    x, y = _scales(points, WIDTH - RIGHT, HEIGHT - BOTTOM, LEFT, TOP)
    inside = [(x(m.at), m) for m in marks if x.low <= m.at <= x.high]
    return Plot(
        entity, signal, WIDTH, HEIGHT, (LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM),
        *_paths(points, x, y), _region(x, since, until),
        tuple((x(t), label) for t, label in time_ticks(x.low, x.high)),
        tuple((y(v), label) for v, label in value_ticks(y.low, y.high, unit)),
        tuple(inside), _summary(entity, signal, unit, points, values),
        quantity(values[-1], unit), quantity(min(values), unit), quantity(max(values), unit))


def spark(vital: JSON) -> Plot | None:
    """A small plot without axes, or None when fewer than two values are known."""
    band = [_float(vital.get(k)) for k in ("expected", "lower", "upper")]
    points: Sequence[Row] = [Row(float(t), _float(v), *band) for t, v in vital.get("points") or []]
    values = [r.value for r in points if math.isfinite(r.value)]
    if len(values) < 2:
        return None
    points = _thinned(points)
    x, y = _scales(points, SPARK_WIDTH - 2, SPARK_HEIGHT - 3, 2, 3)
    unit = str(vital.get("unit") or "")
    return Plot(str(vital["entity"]), str(vital["signal"]), SPARK_WIDTH, SPARK_HEIGHT, (0, 0, SPARK_WIDTH, SPARK_HEIGHT),
                *_paths(points, x, y), None, (), (), (),
                _summary(str(vital["entity"]), str(vital["signal"]), unit, points, values),
                quantity(values[-1], unit), quantity(min(values), unit), quantity(max(values), unit))


def _scales(points: Sequence[Row], right: float, bottom: float, left: float, top: float) -> tuple[Scale, Scale]:
    values = [v for r in points for v in (r.value, r.expected) if math.isfinite(v)]
    bounds = [v for r in points for v in (r.lower, r.upper) if math.isfinite(v)]
    low, high = value_range(values, bounds)
    start, end = points[0].at, points[-1].at
    return Scale(start, end if end > start else start + 1, left, right), Scale(low, high, bottom, top)


def _paths(points: Sequence[Row], x: Scale, y: Scale) -> tuple[str, str, str]:
    """SVG paths of the values, of the band and of its middle, broken where data is missing."""
    runs = list(_runs(points))
    return ("".join(_line([(x(r.at), y(r.value)) for r in part]) for run in runs for part in _known(run, "value")),
            "".join(_area(part, x, y) for run in runs for part in _banded(run)),
            "".join(_line([(x(r.at), y(r.expected)) for r in part]) for run in runs for part in _known(run, "expected")))


def _runs(points: Sequence[Row]) -> Iterator[list[Row]]:
    """Stretches without a hole: a hole is longer than five usual steps."""
    steps = sorted(b.at - a.at for a, b in pairwise(points))
    hole = 5 * steps[len(steps) // 2] if steps else 0.0
    run: list[Row] = []
    for point in points:
        if run and point.at - run[-1].at > hole:
            yield run
            run = []
        run.append(point)
    yield run


def _known(run: Sequence[Row], field: str) -> Iterator[list[Row]]:
    part: list[Row] = []
    for row in run:
        if math.isfinite(getattr(row, field)):
            part.append(row)
        elif part:
            yield part
            part = []
    if part:
        yield part


def _banded(run: Sequence[Row]) -> Iterator[list[Row]]:
    """Where the band is known; a side that is open reaches to the edge."""
    part: list[Row] = []
    for row in run:
        if math.isfinite(row.lower) or math.isfinite(row.upper):
            part.append(row)
        elif part:
            yield part
            part = []
    if len(part) > 1:
        yield part


def _line(at: Sequence[tuple[float, float]]) -> str:
    path = "M" + "L".join(f"{px:g} {py:g}" for px, py in at)
    return path if len(at) > 1 else path + "h0.1"


def _area(part: Sequence[Row], x: Scale, y: Scale) -> str:
    upper = [(x(r.at), y(r.upper) if math.isfinite(r.upper) else y.end) for r in part]
    lower = [(x(r.at), y(r.lower) if math.isfinite(r.lower) else y.start) for r in reversed(part)]
    return "M" + "L".join(f"{px:g} {py:g}" for px, py in [*upper, *lower]) + "Z"


def _region(x: Scale, since: float | None, until: float | None) -> tuple[float, float] | None:
    """Left edge and width of the time in which the signal was wrong."""
    if since is None or since > x.high:
        return None
    start, end = x(max(since, x.low)), x(min(x.high, until or x.high))
    return (start, round(max(1.0, end - start), 1))


def _thinned(points: Sequence[Row]) -> Sequence[Row]:
    """At most MOST_POINTS; of each bucket the lowest and the highest value stay, so that no spike disappears."""
    if len(points) <= MOST_POINTS:
        return points
    size = math.ceil(len(points) / (MOST_POINTS / 2))
    kept: list[Row] = []
    for k in range(0, len(points), size):
        bucket = [r for r in points[k:k + size] if math.isfinite(r.value)] or points[k:k + 1]
        ends = {id(r): r for r in (min(bucket, key=lambda r: r.value), max(bucket, key=lambda r: r.value))}
        kept += sorted(ends.values(), key=lambda r: r.at)
    return kept


def _summary(entity: str, signal: str, unit: str, points: Sequence[Row], values: Sequence[float]) -> str:
    span = points[-1].at - points[0].at
    return (f"{signal} of {entity}: {quantity(values[-1], unit)} at {utc(points[-1].at, '%H:%M:%S UTC')}, between "
            f"{quantity(min(values), unit)} and {quantity(max(values), unit)} in {duration(span)}")


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan
