"""When, and on what, people plan to work: once, or every week in the wall time of some place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

LATEST_S = 2.5e11
"""Beyond some 8,000 years from 1970 there is no calendar."""
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WEEKLY = re.compile(r"(?P<days>[A-Za-z]{3}(?:\s*[-,]\s*[A-Za-z]{3})*)\s+(?P<from>\d\d:\d\d)\s*-\s*(?P<until>\d\d:\d\d)")
_ENTITY = re.compile(r"[^/\s]+/[^/\s]*/.+")
_EXAMPLE = "Write for example 'Sun 02:00-04:00', 'Mon-Fri 22:00-06:00' or 'Sat,Sun 00:00-24:00'."


@dataclass(frozen=True, slots=True)
class Once:
    """From `since` to before `until`, UTC seconds."""

    since: float
    until: float

    def around(self, at: float) -> tuple[float, float] | None:
        """Begin and end where `at` lies within, else None."""
        return (self.since, self.until) if self.since <= at < self.until else None

    def __str__(self) -> str:
        return f"{format_moment(self.since)} to {format_moment(self.until)}"


@dataclass(frozen=True, slots=True)
class Weekly:
    """On these weekdays (0 = Monday) from minute `start` of the day to minute `end`, on the next day where that is no later.

    Wall time of `zone`: with daylight saving a window of 02:00-04:00 lasts one hour once a year, and three once.
    """

    days: frozenset[int]
    start: int
    end: int
    zone: str = "UTC"

    def around(self, at: float) -> tuple[float, float] | None:
        """Begin and end of the occurrence that `at` lies in, else None."""
        if not abs(at) < LATEST_S:
            return None
        today = datetime.fromtimestamp(at, zone_of(self.zone)).date()
        for day in (today, today - timedelta(days=1)):
            begin, end = self._moment(day, self.start), self._moment(day, self.end + 1440 * (self.end <= self.start))
            if day.weekday() in self.days and begin <= at < end:
                return begin, end
        return None

    def _moment(self, day: date, minutes: int) -> float:
        days, minutes = divmod(minutes, 1440)
        wall = datetime(day.year, day.month, day.day, *divmod(minutes, 60), tzinfo=zone_of(self.zone))
        return (wall + timedelta(days=days)).timestamp()

    def __str__(self) -> str:
        """`Mon,Tue 22:00-06:00 Europe/Berlin`, which `parse_weekly` reads but for the zone."""
        days = ",".join(DAYS[d] for d in sorted(self.days))
        return f"{days} {_clock(self.start)}-{_clock(self.end)} {self.zone}"


When = Once | Weekly


def parse_weekly(text: str, zone: str = "UTC") -> Weekly:
    """`Sun 02:00-04:00`, with several days as `Mon-Fri` or `Sat,Sun`. Raises ValueError with the remedy."""
    zone_of(zone)
    match = _WEEKLY.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no weekly window. {_EXAMPLE}")
    days = frozenset(d for part in match["days"].split(",") for d in _days(part.strip(), text))
    start, end = _minutes(match["from"], text), _minutes(match["until"], text)
    if start == end or start == 1440:
        raise ValueError(f"{text!r} has no length. {_EXAMPLE}")
    return Weekly(days, start, end, zone)


@lru_cache(maxsize=64)
def zone_of(name: str) -> ZoneInfo:
    """The time zone of that IANA name. Raises ValueError with the remedy."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"no time zone {name!r}. Write its IANA name, like Europe/Berlin or UTC.") from None


def entity_glob(text: str) -> str:
    """A glob that can match an entity: `kind/namespace/name`, or with `*` in it. Raises ValueError with the remedy."""
    if "*" not in text and not _ENTITY.fullmatch(text):
        raise ValueError(f"{text!r} is no entity. Write kind/namespace/name, like node//gpu-3 or pod/shop/api-*.")
    return text


def parse_moment(value: object) -> float:
    """A date with time and zone, as text or as YAML reads it, in UTC seconds. Raises ValueError with the remedy."""
    remedy = "Write for example 2026-11-21T22:00:00Z."
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"{str(value)!r} is not a time. {remedy}") from None
    if at.tzinfo is None:
        raise ValueError(f"{str(value)!r} names no time zone. {remedy}")
    return at.timestamp()


def format_moment(at: float) -> str:
    """UTC seconds as `2026-11-21T22:00:00Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _days(part: str, text: str) -> list[int]:
    """`Sat`, or from one day to another over the end of the week: `Fri-Mon`."""
    names = [p.strip().capitalize() for p in part.split("-")]
    unknown = next((n for n in names if n not in DAYS), None)
    if unknown or len(names) > 2:
        raise ValueError(f"{text!r}: {unknown or part} is no day of the week. {_EXAMPLE}")
    first, last = DAYS.index(names[0]), DAYS.index(names[-1])
    return [(first + k) % 7 for k in range((last - first) % 7 + 1)]


def _minutes(clock: str, text: str) -> int:
    hours, minutes = map(int, clock.split(":"))
    if minutes > 59 or hours * 60 + minutes > 1440:
        raise ValueError(f"{text!r}: {clock} is no time of the day. {_EXAMPLE}")
    return hours * 60 + minutes


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
