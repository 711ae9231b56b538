"""Runs `tests/scenarios/*.yaml`: what is loaded, and what must be known at which time. The files are the specification.

    load: {step: 10s, series: {"service//api http_error_rate": "0.01x60 0.5x20 0.01x30"}}

One word is a run of samples: `VxN` N times V · `V~WxN` with noise of that width · `V+WxN` each W more than the one
before · `_xN` silence. Times (`at`) count from the first tick. `expect` is checked in order of time, each line after the
step of its time: `alert` and `no_alert` (entity and signal: firing now), `suppressed` (the same, kept from people),
`incidents` (opened so far), `open` (entities of each open incident), `cause` (first cause of the newest incident), `reason`
(words of one of its reasons), `any_reason` (of any candidate's), `action` and `no_action` (type, or decision and type, or
decision, type and target: decided so far), `outcome` (of an action so far). `maintenance` lists windows: entity, from, until.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import T0, Feed, links

from aiops import build, meaning, yamlfile
from aiops.cluster.actuator import SimulatedActuator
from aiops.cluster.simulated import SimulatedCluster
from aiops.loop import advance, with_outcomes
from aiops.maintenance import Maintenance
from aiops.masks import Masks
from aiops.policy.load import compile_document
from aiops.quantities import parse_duration
from aiops.types import Event, Incident, LogLine, Report
from aiops.windows import Once
from aiops.yamlfile import Document

FOLDER = Path(__file__).parent / "scenarios"
FILES = sorted(FOLDER.glob("*.yaml"))
SLOW = {"certificate-expires", "disk-fills"}
"""Days of it: not part of `make check`."""
WORD = re.compile(r"(?P<start>_|[-+0-9.e]+?)(?:(?P<how>[~+])(?P<width>[-0-9.e]+))?x(?P<count>\d+)\Z")
KEYS = {"about", "load", "topology", "logs", "events", "policies", "mode", "maintenance", "expect"}


def samples(words: str, key: str) -> list[float]:
    """The samples of one series; noise is that of its name."""
    out, random = [], np.random.default_rng(zlib.crc32(key.encode()))
    for word in words.split():
        m = WORD.match(word)
        assert m, f"{key}: {word!r} is none of VxN, V~WxN, V+WxN, _xN"
        n, width = int(m["count"]), float(m["width"] or 0)
        start = float("nan") if m["start"] == "_" else float(m["start"])
        out += (start + width * (random.standard_normal(n) if m["how"] == "~" else np.arange(n))).tolist()
    return out


class Scenario:
    """One file, played tick by tick."""

    def __init__(self, path: Path) -> None:
        [document] = yamlfile.read(path)
        self.about: dict[str, Any] = document.data
        assert set(self.about) <= KEYS, f"{path}: unknown key {set(self.about) - KEYS}"
        self.step_s = parse_duration(self.about["load"]["step"])
        self.series = {k: samples(words, k) for k, words in self.about["load"].get("series", {}).items()}
        self.links = links(*self.about.get("topology", ()))
        self.actuator = SimulatedActuator(SimulatedCluster.from_links(self.links))
        self.pipeline = build.pipeline(meaning.shipped(), self._policies(), self.about.get("mode", "act"),
                                       masks=Masks(list(self._windows())))
        self.incidents: dict[str, Incident] = {}
        self.report = Report(T0)

    def _windows(self) -> Iterator[Maintenance]:
        for n, w in enumerate(self.about.get("maintenance", ())):
            begin, end = (T0 + parse_duration(w[name]) for name in ("from", "until"))
            yield Maintenance(f"m{n}", (w["entity"],), Once(begin, end))

    def _policies(self) -> list[Any]:
        """Policies of the program by file name, each in the mode that the scenario gives it."""
        out = []
        for name, mode in self.about.get("policies", {}).items():
            [d] = yamlfile.read(Path(__file__).parents[1] / "policies" / f"{name}.yaml")
            out.append(compile_document(Document(d.file, {**d.data, "spec": {**d.data["spec"], "mode": mode}}, d.lines),
                                        meaning.shipped(), problems := []))
            assert not problems, problems
        return out

    def play(self) -> None:
        """Every tick, and after each whatever is expected by then."""
        due = sorted(self.about["expect"], key=lambda e: parse_duration(e["at"]))
        ticks = max((len(v) for v in self.series.values()), default=0)
        feed = Feed()
        for k in range(ticks):
            self._tick(feed, k)
            while due and parse_duration(due[0]["at"]) <= k * self.step_s:
                self._check(due.pop(0))
        assert not due, f"the samples end before {due[0]['at']}"

    def _tick(self, feed: Feed, k: int) -> None:
        at = T0 + k * self.step_s
        row = {key: v[k] for key, v in self.series.items() if k < len(v) and v[k] == v[k]}
        lines = [LogLine(at, x["entity"], x["text"]) for x in self._now("logs", k) for _ in range(x.get("times", 1))]
        events = [Event(at, x["entity"], x["kind"], x["reason"]) for x in self._now("events", k)]
        batch = feed.batch(at, row, lines=tuple(lines), events=tuple(events), links=self.links if k == 0 else None)
        self.report = advance(self.pipeline, with_outcomes(batch, self.actuator.collect()), self.actuator, ())
        self.incidents |= {i.id: i for i in self.report.incidents}

    def _now(self, what: str, k: int) -> list[dict[str, Any]]:
        """Logs and events of this tick; `every` repeats them `until`."""
        out = []
        for x in self.about.get(what, ()):
            start, every, until = (parse_duration(str(x[n])) if n in x else 0.0 for n in ("at", "every", "until"))
            t = k * self.step_s
            if t == start or (every and start <= t <= until and (t - start) % every == 0):
                out.append(x)
        return out

    # -------------------------------------------------------------------------------------------------- expectations
    def _check(self, expected: dict[str, Any]) -> None:
        [what] = set(expected) - {"at"}
        known = {n.removeprefix("_is_") for n in dir(self) if n.startswith("_is_")}
        assert what in known, f"{what!r} is none of {sorted(known)}"
        said = getattr(self, f"_is_{what}")(expected[what])
        assert said is None, f"at {expected['at']}: expected {what} {expected[what]!r}, found {said!r}"

    def _alerts(self) -> list[str]:
        return [f"{a.entity} {a.signal}" for a in self.report.alerts if a.state == "firing"]

    def _is_suppressed(self, key: str) -> object:
        found = [f"{a.entity} {a.signal}" for a in self.report.alerts if a.state == "suppressed"]
        return None if key in found else found

    def _actions(self) -> list[str]:
        return [f"{a.decision} {a.type} {a.target}" for i in self.incidents.values() for a in i.actions]

    def _newest(self) -> Incident | None:
        return max(self.incidents.values(), key=lambda i: (i.opened_at, i.id), default=None)

    def _is_alert(self, key: str) -> object:
        return None if key in self._alerts() else self._alerts()

    def _is_no_alert(self, key: str) -> object:
        return self._alerts() if key in self._alerts() or (key == "any" and self._alerts()) else None

    def _is_incidents(self, count: int) -> object:
        return None if len(self.incidents) == count else [i.title for i in self.incidents.values()]

    def _is_open(self, groups: list[list[str]]) -> object:
        found = sorted(sorted(i.entities) for i in self.pipeline.book.open())
        return None if found == sorted(map(sorted, groups)) else found

    def _is_cause(self, entity: str) -> object:
        found = [c.entity for c in self._newest().causes] if self._newest() else "no incident"
        return None if found and found[0] == entity else found

    def _is_reason(self, words: str) -> object:
        newest = self._newest()
        found = [r.text for r in newest.causes[0].reasons] if newest else []
        return None if any(words in text for text in found) else found

    def _is_any_reason(self, words: str) -> object:
        newest = self._newest()
        found = [r.text for c in newest.causes for r in c.reasons] if newest else []
        return None if any(words in text for text in found) else found

    def _is_action(self, words: str) -> object:
        return None if any(words in a for a in self._actions()) else self._actions()

    def _is_no_action(self, words: str) -> object:
        return self._actions() if any(words in a for a in self._actions()) else None

    def _is_outcome(self, status: str) -> object:
        found = [o.status for i in self.pipeline.book.current() for o in i.outcomes]
        return None if status in found else found


@pytest.mark.parametrize("path", [pytest.param(p, marks=[pytest.mark.slow] if p.stem in SLOW else []) for p in FILES],
                         ids=lambda p: p.stem)
def test_scenario(path: Path) -> None:
    """What the file says comes true."""
    scenario = Scenario(path)
    assert scenario.about["about"], "a scenario says what it is about"
    scenario.play()


def test_the_specification_is_there() -> None:
    """Ten files at least, each with something that must and something that must not be."""
    assert len(FILES) >= 10
    assert [path.name for path in FILES if len(Scenario(path).about["expect"]) < 2] == []


@pytest.mark.parametrize("expected", [
    {"alert": "service//a x"}, {"incidents": 7}, {"cause": "service//a"}, {"reason": "x"}, {"any_reason": "x"},
    {"action": "Restart"}, {"outcome": "helped"}, {"open": [["service//a"]]}, {"suppressed": "service//a x"}, {"nonsense": 1}])
def test_a_scenario_can_fail(expected: dict[str, Any]) -> None:
    """Or it would specify nothing."""
    scenario = Scenario(FILES[0])
    with pytest.raises(AssertionError):
        scenario._check({"at": "0s", **expected})


def test_words_are_samples() -> None:
    """The whole notation."""
    assert samples("1x2 2+0.5x3 -1e-3x1", "k") == [1, 1, 2, 2.5, 3, -1e-3]
    assert [x == x for x in samples("1x1 _x2", "k")] == [True, False, False]
    assert 0 < np.std(samples("5~0.1x50", "k")) < 0.2 and samples("5~0.1x9", "k") == samples("5~0.1x9", "k")
    with pytest.raises(AssertionError, match="is none of"):
        samples("5*3", "k")
