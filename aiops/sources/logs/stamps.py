"""The times that log lines carry: RFC 3339 and ISO 8601, syslog (RFC 3164 and 5424), klog, seconds or more since 1970.

Sources: https://www.rfc-editor.org/rfc/rfc3339, rfc3164, rfc5424; klog's header is described in
https://pkg.go.dev/k8s.io/klog/v2 (`Lmmdd hh:mm:ss.uuuuuu threadid file:line] msg`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

OLDEST_S = 30 * 86400.0
AHEAD_S = 300.0
_ISO = re.compile(r"(?:<\d{1,3}>\d )?\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)([.,]\d{1,9})?(?: ?(Z|[+-]\d\d:?\d\d))?")
_KLOG = re.compile(r"[IWEF](\d\d)(\d\d) (\d\d):(\d\d):(\d\d)(\.\d{1,6}) ")
_SYSLOG = re.compile(r"(?:<\d{1,3}>)?(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) ( ?\d|\d\d) (\d\d):(\d\d):(\d\d) ")
_EPOCH = re.compile(r"\[?(\d{10})(\.\d{1,9}|\d{3}|\d{6}|\d{9})?(?=[\s\],:]|$)")
_MONTHS = {name: number for number, name in enumerate(
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1)}


class Stamps:
    """Reads the time at the beginning of lines, UTC seconds. `zone` is what times without a zone are meant in.

    The last second that was read is remembered, because the lines of one file share it.
    """

    def __init__(self, zone: tzinfo = UTC) -> None:
        self._zone = zone
        self._last: tuple[str, str | None, float] = ("", None, 0.0)

    def of(self, text: str, now: float) -> float | None:
        """The time of a line; None where it names none, or one that cannot be: a month ago, or in five minutes.

        A little ahead of `now` is `now`: the clocks of two machines are never the same.
        """
        found = self._read(text, now)
        if found is None or not now - OLDEST_S <= found <= now + AHEAD_S:
            return None
        return min(found, now)

    def _read(self, text: str, now: float) -> float | None:
        first = text[:1]
        try:
            if first.isdigit() or first in "[<":
                return self._iso(text) or _epoch(text) or self._syslog(text, now)
            if first in "IWEF" and (m := _KLOG.match(text)):
                return self._year(now, (int(m[1]), int(m[2]), int(m[3]), int(m[4]), int(m[5]))) + float(m[6])
            return self._syslog(text, now) if first.isupper() else None
        except (ValueError, OverflowError):  # the 31st of February
            return None

    def _iso(self, text: str) -> float | None:
        m = _ISO.match(text)
        if m is None:
            return None
        second, part, zone = m.groups()
        known_second, known_zone, at = self._last
        if second != known_second or zone != known_zone:
            when = datetime.fromisoformat(second + (zone or ""))
            at = (when if when.tzinfo else when.replace(tzinfo=self._zone)).timestamp()
            self._last = (second, zone, at)
        return at + float("0." + part[1:]) if part else at

    def _syslog(self, text: str, now: float) -> float | None:
        m = _SYSLOG.match(text)
        return self._year(now, (_MONTHS[m[1]], int(m[2]), int(m[3]), int(m[4]), int(m[5]))) if m else None

    def _year(self, now: float, parts: tuple[int, int, int, int, int]) -> float:
        """A time that names no year is the one in the past year: a day ahead of `now` at most."""
        month, day, hour, minute, second = parts
        latest = datetime.fromtimestamp(now, self._zone) + timedelta(days=1)
        for year in (latest.year, latest.year - 1):
            if (month, day) == (2, 29) and year % 4:
                continue
            when = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=self._zone)
            if when <= latest:
                return when.timestamp()
        raise ValueError(f"no {month}-{day} in the past year")


def _epoch(text: str) -> float | None:
    m = _EPOCH.match(text)
    if m is None:
        return None
    part = m[2] or ""
    return float(m[1]) + (float("0." + part.lstrip(".")) if part else 0.0)


def number(value: object) -> float | None:
    """Seconds since 1970 of a bare number in seconds, milli-, micro- or nanoseconds, as JSON logs hold it; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    seconds = float(value)
    for scale in (1.0, 1e3, 1e6, 1e9):
        if 1e9 <= seconds / scale < 1e10:
            return seconds / scale
    return None
