"""What conditions may ask about an incident, answered from its window and scope."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from helpers import STEP_S, T0, alert, anomaly, graph, meanings

from aiops.evidence import KEEP_S, LOOK_BACK_S, MAX_LINES, RecentEvidence
from aiops.history import History
from aiops.signals import STALE_S
from aiops.types import Cause, Event, Incident, LogLine, Signal

OF = (Signal(0, "pod//a", "errors", direction="up"), Signal(1, "pod//b", "errors", direction="up"),
      Signal(2, "pod//far", "errors", direction="up"), Signal(3, "pod//a", "kills", additive=True),
      Signal(4, "pod//a", "alive", direction="down"), Signal(5, "pod//b", "alive", direction="down"),
      Signal(6, "service//s", "speed"))
KNOWN = meanings({"kills_total": "counter", "unused": "gauge"}, {"kills": {"increase": "kills_total"}})


class Run:
    def __init__(self):
        self.history, self.k = History(), 0
        self.evidence = RecentEvidence(self.history, KNOWN)
        self.evidence.graph = graph("service//s owns pod//a", "pod//b calls service//s")

    @property
    def now(self):
        return T0 + self.k * STEP_S

    def tick(self, values, lines=(), anomalies=(), steps=1):
        self.k += steps
        x = np.array(values, float)
        self.history.add(self.now, x, x, x)
        self.evidence.update(self.now, OF, lines, anomalies)


def incident(*entities, opened_at=T0, alerts=()):
    return Incident("i", opened_at, opened_at, "open", "warning", entities, tuple(alerts))


VALUES = [0.1, 0.2, 0.9, 1.0, 1.0, 0.0, 7.0]
NAN = [math.nan] * 7


def test_a_level_is_the_last_value_and_an_increase_adds_up():
    """Over the incident's window."""
    run = Run()
    for x in (0.5, 0.3, 0.1):
        run.tick([x, *VALUES[1:]])
    assert run.evidence.measure("errors", incident("pod//a")) == pytest.approx(0.1)
    assert run.evidence.measure("kills", incident("pod//a")) == 3.0


def test_the_window_begins_shortly_before_the_incident():
    """Kills of an hour ago are not its evidence."""
    run = Run()
    for _ in range(100):
        run.tick(VALUES)
    late = incident("pod//a", opened_at=run.now)
    assert run.evidence.measure("kills", late) == LOOK_BACK_S / STEP_S + 1
    assert run.evidence.measure("kills", replace(late, opened_at=run.now + LOOK_BACK_S + 1)) is None


def test_the_worst_of_the_incidents_entities_is_what_counts():
    """The largest, or the smallest where small is bad; strangers do not count."""
    run = Run()
    run.tick(VALUES)
    assert run.evidence.measure("errors", incident("pod//a", "pod//b")) == pytest.approx(0.2)
    assert run.evidence.measure("alive", incident("pod//a", "pod//b")) == 0.0


def test_neighbours_answer_where_the_incident_cannot():
    """A pod's service knows what the pod does not report, one hop away and no further."""
    run = Run()
    run.tick(VALUES)
    assert run.evidence.measure("speed", incident("pod//a")) == 7.0
    assert run.evidence.measure("errors", incident("service//s")) == pytest.approx(0.2)
    assert run.evidence.measure("speed", incident("pod//far")) is None


def test_a_raw_metric_is_answered_by_the_signal_made_of_it():
    """Whoever writes a policy may know only what Prometheus calls it."""
    run = Run()
    run.tick(VALUES)
    assert run.evidence.measure("kills_total", incident("pod//a")) == 1.0
    assert run.evidence.measure("unused", incident("pod//a")) is run.evidence.measure("nonsense", incident("pod//a")) is None


def test_what_stopped_reporting_keeps_its_last_value_in_the_window():
    """NaN is not a measurement."""
    run = Run()
    run.tick(VALUES)
    run.tick(NAN)
    assert run.evidence.measure("errors", incident("pod//a")) == pytest.approx(0.1)


def test_what_stopped_reporting_is_not_known_after_a_while():
    """A condition over a value of ten minutes ago is not met, and a verdict on it is `unknown`; increases stay counted."""
    run = Run()
    run.tick(VALUES)
    run.tick(NAN, steps=int(STALE_S / STEP_S))
    assert run.evidence.measure("errors", incident("pod//a")) == pytest.approx(0.1)
    run.tick(NAN)
    assert run.evidence.measure("errors", incident("pod//a")) is None
    assert run.evidence.measure("kills", incident("pod//a")) == 1.0


def line(k, text, entity="pod//a"):
    return LogLine(T0 + k * STEP_S, entity, text)


def test_lines_are_counted_by_expression_in_window_and_scope():
    """Those of the entities and their neighbours; a pattern that is no expression is a text."""
    run = Run()
    run.tick(NAN, [line(1, "OutOfMemoryError: heap"), line(1, "OutOfMemoryError", "service//s"), line(1, "fine (really"),
                   line(1, "OutOfMemoryError", "pod//far")])
    ask = run.evidence.log_count
    assert ask("OutOfMemory.*", incident("pod//a")) == 2
    assert ask("(really", incident("pod//a")) == 1
    assert ask("OutOfMemory", incident("pod//a", opened_at=T0 + LOOK_BACK_S + 100)) == 0


def test_what_is_half_an_hour_old_is_forgotten():
    """Lines and anomalies, and never more of them than fit."""
    run = Run()
    run.tick(NAN, [line(1, "x")], [anomaly(run.now + STEP_S, "pod//a errors", 1e-5)])
    run.tick(NAN, steps=int(KEEP_S / STEP_S) + 1)
    assert run.evidence.log_count("x", incident("pod//a")) == 0
    assert run.evidence.anomalies(incident("pod//a")) == []
    run.tick(NAN, [line(run.k + 1, "x")] * (MAX_LINES + 5))
    assert run.evidence.log_count("x", incident("pod//a", opened_at=run.now)) == MAX_LINES


def test_anomalies_are_those_of_its_entities():
    """Notes, with p = 1, are none."""
    run = Run()
    found = [anomaly(T0 + 10, "pod//a errors", 1e-5), anomaly(T0 + 10, "pod//b errors", 1e-5),
             anomaly(T0 + 10, "pod//a new_normal", 1.0)]
    run.tick(NAN, anomalies=found)
    assert run.evidence.anomalies(incident("pod//a")) == found[:1]


def test_age_is_that_of_the_newest_evidence():
    """Anomalies and alerts of others; without either, the incident's own."""
    run = Run()
    run.tick(NAN, anomalies=[anomaly(T0 + 10, "pod//a errors", 1e-5)])
    run.tick(NAN, steps=5)
    assert run.evidence.age(incident("pod//a")) == 50.0
    assert run.evidence.age(incident("pod//z", opened_at=T0 + 20)) == 40.0
    others = replace(alert("pod//z alert:Slow", T0), at=T0 + 55, detectors=("alertmanager",))
    assert run.evidence.age(incident("pod//z", alerts=[others])) == 5.0
    assert run.evidence.age(incident("pod//z", alerts=[replace(others, state="resolved")])) == 60.0


def test_clear_means_that_every_alert_is_resolved():
    """One that fires is enough to be unclear."""
    fires, over = alert("pod//a x"), alert("pod//a y", state="resolved")
    assert Run().evidence.clear(incident("pod//a", alerts=[over]))
    assert not Run().evidence.clear(incident("pod//a", alerts=[over, fires]))


def test_a_witness_does_not_keep_an_incident_from_being_clear():
    """It never fires, so it never resolves."""
    over, witness = alert("pod//a errors", state="resolved"), alert("pod//b cores", state="pending")
    assert Run().evidence.clear(incident("pod//a", "pod//b", alerts=[over, witness]))
    assert not Run().evidence.clear(incident("pod//a", alerts=[over, alert("pod//a speed")]))


def test_maintenance_of_anybody_concerned_is_known():
    """The target, the incident, who owns them, and what those need - and not what is further away."""
    def concerned(who):
        evidence = RecentEvidence(History(), meanings({}, {}), lambda entity: "m" if entity == who else "")
        evidence.graph = graph("service//api owns pod//a", "service//api calls service//db", "service//db calls disk//x")
        return evidence.maintenance(incident("pod//a"), "deployment//api")
    assert [concerned(e) for e in ("deployment//api", "pod//a", "service//api", "service//db")] == ["m"] * 4
    assert [concerned(e) for e in ("disk//x", "pod//b", "")] == [""] * 3


def test_a_suppressed_alert_says_nothing_about_whether_it_is_well():
    """It deviates, and nobody is told: not clear, and not unclear."""
    assert Run().evidence.clear(incident("pod//a", alerts=[alert("pod//a y", state="suppressed")])) is None


def test_events_are_counted_by_reason_and_text():
    """On the incident's entities and their neighbours, since shortly before it was opened."""
    run, old = Run(), T0 - LOOK_BACK_S - 1.0
    xid = [Event(at, entity, "warning", "XID 79", "XID 79 (hardware, critical): off the bus.")
           for at, entity in ((T0, "pod//a"), (T0, "service//s"), (T0, "pod//far"), (old, "pod//a"))]
    run.k += 1
    run.history.add(run.now, *[np.array(VALUES)] * 3)
    run.evidence.update(run.now, OF, (), (), xid)
    assert run.evidence.event_count(r"XID \d+ \(hardware", incident("pod//a")) == 2
    assert run.evidence.event_count("^XID 79", incident("pod//far")) == 1
    assert run.evidence.event_count("(", incident("pod//a")) == 2
    run.tick(VALUES, steps=int(KEEP_S / STEP_S) + 1)
    assert run.evidence.event_count("XID", incident("pod//a")) == 0


def test_what_is_around_an_entity():
    """Workload, service and node, where there is one of each."""
    run = Run()
    run.evidence.graph = graph(
        "deployment/s/web owns pod/s/w-1", "deployment/s/web owns pod/s/w-2", "service/s/shop owns pod/s/w-1",
        "pod/s/w-1 runs_on node//n1", "pod/s/w-2 runs_on node//n2", "node//n1 uses gpu/n1/0")
    around = run.evidence.around
    assert around("pod/s/w-1") == {"workload": "web", "service": "shop", "node": "n1"}
    assert around("service/s/shop") == {"workload": "web", "service": "shop", "node": "n1"}
    assert around("deployment/s/web") == {"workload": "web", "service": "shop"}
    assert around("gpu/n1/0") == {"node": "n1"} and around("node//n1") == {"node": "n1"}
    assert around("service/s/unknown") == {"service": "unknown"}


def test_how_many_replicas_of_the_cause_are_affected():
    """Those of its workload or service that fire; callers, and siblings that are well, do not count."""
    run = Run()
    run.evidence.graph = graph(*(f"deployment//d owns pod//d-{k}" for k in range(3)), "service//s calls pod//d-0")
    fire = [alert("pod//d-0 slow"), alert("pod//d-0 full"), alert("service//s slow"), alert("pod//other slow"),
            alert("pod//d-1 slow", state="resolved")]
    by = [(Cause(e, 1.0, (), ()),) for e in ("pod//d-0", "deployment//d", "service//s")]
    assert [run.evidence.affected(replace(incident("pod//d-0", alerts=fire), causes=c)) for c in by] == [1, 1, 0]
    both = incident("pod//d-0", alerts=[*fire, alert("pod//d-2 slow")])
    assert run.evidence.affected(replace(both, causes=by[0])) == 2
    assert run.evidence.affected(both) == 0


def test_what_rose_near_the_target_is_told():
    """Neighbours of the incident and of the target; not what is far, was there before, has no bad side, or fell silent."""
    run = Run()
    run.tick(VALUES)
    since = T0 + 100.0
    new = [alert(f"{entity} errors", since + 1, direction="up", detectors=("baseline",))
           for entity in ("pod//b", "service//s", "pod//far")]
    run.evidence.alerts = [*new, replace(new[0], since=since - 1), replace(new[0], direction="both"),
                           replace(new[0], detectors=("absence",)), replace(new[0], state="resolved")]
    assert run.evidence.risen(incident("pod//a"), "deployment//x", since) == [new[1]]
    assert run.evidence.risen(incident("service//s"), "pod//b", since) == new[:2]


def test_who_depends_on_what_fails_is_explained_by_it():
    """A callee, a sibling's node, a GPU below; not from above, not what was opened long before; of a circle the later one."""
    run = Run()
    run.evidence.graph = graph(
        "service//front calls service//s", "service//s owns pod//a", "service//s owns pod//b", "pod//b runs_on node//n",
        "node//n uses gpu//n/0", "service//x calls service//y", "service//y calls service//x")

    def of(name, entity, after_s=0.0):
        return replace(incident(entity, opened_at=T0 + after_s), id=name)

    gpu, front, a = of("i-gpu", "gpu//n/0", 30.0), of("i-front", "service//front"), of("i-a", "pod//a")
    run.evidence.incidents = [gpu, front, a]
    assert run.evidence.explained(a) == "i-gpu (gpu//n/0)"
    assert run.evidence.explained(front) == "i-gpu (gpu//n/0)"
    assert run.evidence.explained(gpu) == ""
    run.evidence.incidents = [front, a]
    assert (run.evidence.explained(front), run.evidence.explained(a)) == ("i-a (pod//a)", "")
    run.evidence.incidents = [of("i-old", "node//n", -601.0), a]
    assert run.evidence.explained(a) == ""
    run.evidence.hear([gpu, a])
    run.evidence.graph = graph("service//s owns pod//a")
    assert run.evidence.explained(a) == "i-gpu (gpu//n/0)"  # it was moved away from there, and was its victim all the same
    run.evidence.hear([a])
    assert run.evidence.explained(a) == ""
    run.evidence.graph = graph("service//x calls service//y", "service//y calls service//x")
    x, y = of("i-x", "service//x"), of("i-y", "service//y", 15.0)
    run.evidence.incidents = [x, y]
    assert (run.evidence.explained(x), run.evidence.explained(y)) == ("", "i-x (service//x)")


def test_what_is_back_in_its_band_has_subsided():
    """Reported just now, within the band, and found odd by nobody in this step; a name may stand for several signals."""
    run = Run()
    run.tick(VALUES, anomalies=[anomaly(run.now + STEP_S, "pod//a errors", 1e-6)])
    assert not run.evidence.subsided("pod//a", "errors")
    run.tick(VALUES)
    assert run.evidence.subsided("pod//a", "errors")
    assert not run.evidence.subsided("pod//a", "unheard of") and not run.evidence.subsided("pod//gone", "errors")


def test_nobody_knows_whether_it_has_subsided_without_a_value_or_a_band():
    """Silence proves nothing, nor does a value of which it is not known what is usual; and one outside of its band has not."""
    run = Run()
    run.tick(VALUES)
    run.tick(NAN)
    assert not run.evidence.subsided("pod//a", "errors")
    for expected, half in ((math.nan, math.nan), (5.0, 1.0)):
        run.k += 1
        run.history.add(run.now, np.array(VALUES), np.full(7, expected), np.full(7, half))
        run.evidence.update(run.now, OF, (), ())
        assert not run.evidence.subsided("pod//a", "errors")
