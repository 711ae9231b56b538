"""When people plan to work: single and weekly windows, in the wall time of a place."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from aiops.windows import Once, Weekly, entity_glob, format_moment, parse_moment, parse_weekly


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def inside(weekly: Weekly, *moments: str) -> list[bool]:
    return [weekly.around(at(m)) is not None for m in moments]


def test_a_single_window_ends_just_before_its_end() -> None:
    """So that two that follow one another do not overlap."""
    once = Once(10.0, 20.0)
    assert [once.around(t) for t in (9.9, 10.0, 19.9, 20.0)] == [None, (10.0, 20.0), (10.0, 20.0), None]


def test_a_weekly_window_is_on_its_days_only() -> None:
    """2026-11-22 is a Sunday."""
    weekly = parse_weekly("Sun 02:00-04:00")
    assert inside(weekly, "2026-11-22T02:00", "2026-11-22T03:59", "2026-11-22T04:00", "2026-11-23T02:00", "2026-11-29T03:00") == [
        True, True, False, False, True]
    assert weekly.around(at("2026-11-22T03:00")) == (at("2026-11-22T02:00"), at("2026-11-22T04:00"))


def test_a_window_over_midnight_belongs_to_the_day_it_began() -> None:
    """Friday night reaches into Saturday; Monday morning belongs to no night of Mon-Fri but Monday's own is not over yet."""
    nights = parse_weekly("Mon-Fri 22:00-06:00")
    assert inside(nights, "2026-11-20T23:00", "2026-11-21T05:00", "2026-11-21T23:00", "2026-11-23T05:00", "2026-11-24T05:00") == [
        True, True, False, False, True]


def test_wall_time_moves_with_daylight_saving() -> None:
    """Berlin is an hour ahead of UTC in winter and two in summer."""
    weekly = parse_weekly("Sun 02:00-04:00", "Europe/Berlin")
    assert inside(weekly, "2026-11-22T01:00", "2026-11-22T03:00", "2026-07-05T00:00", "2026-07-05T02:00") == [
        True, False, True, False]


def test_a_window_across_the_change_of_clocks_is_shorter_or_longer() -> None:
    """02:00-04:00 in Berlin: one hour on the last Sunday of March, three on that of October."""
    weekly = parse_weekly("Sun 02:00-04:00", "Europe/Berlin")
    spring, autumn = (weekly.around(at(t)) for t in ("2026-03-29T01:30", "2026-10-25T01:30"))
    assert spring and autumn
    assert (spring[1] - spring[0], autumn[1] - autumn[0]) == (3600.0, 3 * 3600.0)


@pytest.mark.parametrize(("text", "days"), [
    ("Sat,Sun 00:00-24:00", {5, 6}), ("Fri-Mon 01:00-02:00", {4, 5, 6, 0}), ("mon , wed-thu 01:00 - 02:00", {0, 2, 3})])
def test_days_are_listed_or_spanned(text: str, days: set[int]) -> None:
    """Over the end of the week, too; and what is printed reads back."""
    weekly = parse_weekly(text)
    assert weekly.days == days
    assert parse_weekly(str(weekly).rpartition(" ")[0]) == weekly


def test_a_whole_weekend_has_no_hole() -> None:
    """Every minute of both days."""
    weekend = parse_weekly("Sat,Sun 00:00-24:00")
    start = at("2026-11-21T00:00")
    hours = [weekend.around(start + 3600 * h) is not None for h in range(-2, 50)]
    assert hours == [False] * 2 + [True] * 48 + [False] * 2


@pytest.mark.parametrize("text", ["", "Sun", "Sunday 02:00-04:00", "Sun 2:00-4:00", "Sun 25:00-26:00", "Sun 01:61-02:00",
                                  "Sun 02:00-02:00", "Sun 24:00-01:00", "Foo 01:00-02:00", "Mon-Tue-Wed 01:00-02:00"])
def test_what_is_no_window_is_refused_with_an_example(text: str) -> None:
    """In one sentence with the remedy."""
    with pytest.raises(ValueError, match="Write for example 'Sun 02:00-04:00'"):
        parse_weekly(text)


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../etc/passwd", "Europe"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    """By its name."""
    with pytest.raises(ValueError, match="no time zone"):
        parse_weekly("Sun 02:00-04:00", zone)


def test_a_moment_needs_its_zone() -> None:
    """As text, or as YAML reads it; and back."""
    assert parse_moment("2026-11-21T22:00Z") == parse_moment("2026-11-21T23:00:00+01:00") == at("2026-11-21T22:00")
    assert format_moment(parse_moment("2026-11-21T23:00:00+01:00")) == "2026-11-21T22:00:00Z"
    for text in ("2026-11-21T22:00", "2026-11-21", datetime(2026, 11, 21), "tonight", 5):  # noqa: DTZ001
        with pytest.raises(ValueError, match=r"Write for example 2026-11-21T22:00:00Z\."):
            parse_moment(text)


@pytest.mark.parametrize("moment", [math.inf, -math.inf, math.nan, 1e300, -1e13])
def test_times_beyond_any_calendar_are_in_no_window(moment: float) -> None:
    """And break nothing."""
    assert parse_weekly("Sat,Sun 00:00-24:00").around(moment) is None


def test_an_entity_or_a_wildcard_can_be_covered() -> None:
    """A bare name would never match."""
    assert [entity_glob(x) for x in ("node//a", "pod/shop/a b", "*", "*gpu*")] == ["node//a", "pod/shop/a b", "*", "*gpu*"]
    for text in ("gpu-3", "node/a", "", "/x/y"):
        with pytest.raises(ValueError, match="is no entity"):
            entity_glob(text)
