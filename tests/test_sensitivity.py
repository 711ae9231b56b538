"""What people say of incidents moves how much evidence a class needs: bounded, fading, within the budget, and never blind."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from helpers import STEP_S, T0, Feed, alert, frame, graph, links, signals
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops import build, meaning, sensitivity
from aiops.alerting import Alerting
from aiops.capsules.names import Names
from aiops.capsules.redact import _Redaction
from aiops.ladder import RUNGS
from aiops.masks import Masks
from aiops.sensitivity import FADES_S, LEAST, MAX_INCIDENTS, MAX_OF_ONE, MAX_VERDICTS, MOST, STEP, Sensitivity, class_of
from aiops.types import Anomaly, Command, Incident

DAY_S = 86_400.0
CHAT = graph("deployment/shop/chat owns pod/shop/chat-1", "deployment/shop/chat owns pod/shop/chat-2",
             "service/shop/chat owns pod/shop/chat-1", "deployment/shop/api owns pod/shop/api-1")
CHAT_LINKS = links("deployment/shop/chat owns pod/shop/chat-1", "deployment/shop/chat owns pod/shop/chat-2")
ONE, TWO, OTHER, LATENCY = "pod/shop/chat-1", "pod/shop/chat-2", "pod/shop/api-1", 'latency{q="9"}'


def incident(name, *alerts, state="open"):
    return Incident(name, T0, T0, state, "warning", tuple(a.entity for a in alerts), alerts)


def said(verb, target, at=T0, by="ann"):
    return Command(at, verb, target, by)


def told(*words, entity=ONE, signal=LATENCY):
    """One after whom verdicts were said: (verb, incident) or (verb, incident, time)."""
    s = Sensitivity()
    s.graph = CHAT
    names = dict.fromkeys(word[1] for word in words)
    s.watch([incident(name, alert(f"{entity} {signal}")) for name in names])
    for verb, name, *at in words:
        s.judge(said(verb, name, *at))
    return s


# ----------------------------------------------------------------------------------------------------------- classes
@pytest.mark.parametrize(("entity", "expected"), [
    (ONE, "pod of deployment/shop/chat"), ("pod/shop/web-7d4f9b5c6d-x2x9z", "pod/shop/web*"), ("node//gpu-3", "node//gpu*"),
    ("gpu/gpu-3/0", "gpu/gpu-3/*"), ("service//db", "service//db")])
def test_a_class_is_a_workload_or_what_names_have_in_common(entity, expected):
    """By the topology first."""
    assert class_of(entity, CHAT) == expected


# ----------------------------------------------------------------------------------------------------------- the shift
def test_a_verdict_is_about_the_whole_class_and_the_signal_without_labels():
    """The pod that comes next is meant, too; other workloads, and other signals, are not."""
    s = told(("false_alarm", "i"))
    assert s.factor(T0, ONE, LATENCY) == s.factor(T0, TWO, "latency") == pytest.approx(STEP)
    assert s.factor(T0, OTHER, LATENCY) == s.factor(T0, ONE, "errors") == 1.0


def test_useful_asks_for_less_and_contrary_words_balance_each_other():
    """On one incident the last word counts, and saying it twice is saying it once."""
    assert told(("useful", "i")).factor(T0, ONE, LATENCY) == pytest.approx(1 / STEP)
    assert told(("false_alarm", "i"), ("false_alarm", "i")).factor(T0, ONE, LATENCY) == pytest.approx(STEP)
    assert told(("false_alarm", "i"), ("useful", "i")).factor(T0, ONE, LATENCY) == pytest.approx(1 / STEP)
    assert told(("false_alarm", "i"), ("useful", "j")).factor(T0, ONE, LATENCY) == pytest.approx(1.0)


def test_it_fades_to_nothing():
    """Half of it after a month, nothing after two."""
    s = told(("false_alarm", "i"))
    assert s.factor(T0 + FADES_S / 2, ONE, LATENCY) == pytest.approx(math.sqrt(STEP))
    assert s.factor(T0 + FADES_S, ONE, LATENCY) == 1.0 and s.rows(T0 + FADES_S) == []
    assert s.rows(T0) == [{"class": "pod of deployment/shop/chat", "signal": "latency", "factor": pytest.approx(STEP),
                           "false_alarms": 1, "useful": 0, "by": ["ann"], "until": T0 + FADES_S}]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["false_alarm", "useful"]), st.integers(0, 9), st.floats(0, 100 * DAY_S)), max_size=40),
       st.floats(0, 200 * DAY_S))
def test_it_never_leaves_its_bounds_whatever_is_said(words, later):
    """Any words in any order, asked at any time; and what was saved says the same."""
    s = told(*((verb, f"i{n}", T0 + at) for verb, n, at in words))
    found = s.factor(T0 + later, ONE, LATENCY)
    assert LEAST <= found <= MOST
    again = Sensitivity()
    again.graph = CHAT
    again.restore(json.loads(json.dumps(s.state())))
    assert again.factor(T0 + later, ONE, LATENCY) == found and again.state() == s.state()


def test_alerts_of_others_and_incidents_that_nobody_knows_move_nothing():
    """No evidence is asked of the former."""
    s = Sensitivity()
    s.watch([incident("i", alert("service//db alert:Slow", detectors=("alertmanager",)))])
    for name in ("i", "nobody"):
        s.judge(said("false_alarm", name))
    assert s.rows(T0) == [] and s.state()["said"] == {}


def test_the_morning_after_counts_and_what_is_remembered_is_bounded():
    """Incidents, verdicts, and of an incident the strongest alerts."""
    s = Sensitivity()
    many = [alert(f"service//s{k:03d} x", strength=float(k)) for k in range(2 * MAX_OF_ONE)]
    s.watch([incident("i", *many)])
    s.watch([])
    s.judge(said("false_alarm", "i"))
    assert len(s.rows(T0)) == MAX_OF_ONE
    assert s.factor(T0, "service//s099", "x") == pytest.approx(STEP) and s.factor(T0, "service//s000", "x") == 1.0
    for k in range(2 * MAX_VERDICTS):
        s.watch([incident(f"i{k}", alert("service//a x"))])
        s.judge(said("false_alarm", f"i{k}"))
    assert len(s.state()["said"]) == MAX_VERDICTS and len(s.state()["about"]) <= MAX_INCIDENTS + 1


def test_it_can_be_forgotten_by_class_or_by_class_and_signal():
    """What is left of a verdict stays."""
    s = Sensitivity()
    s.watch([incident("i", alert("service//a x"), alert("service//a y"), alert("service//b x"))])
    s.judge(said("false_alarm", "i"))
    assert s.forget(("service//a y",)) == 1 and s.factor(T0, "service//a", "y") == 1.0
    assert s.forget(("service//a", "service//c")) == 1 and s.factor(T0, "service//b", "x") == STEP
    assert s.forget() == 1 and s.state()["said"] == {}


def test_classes_are_told_anew_when_the_topology_changes(monkeypatch):
    """And those of many entities are not remembered for ever."""
    monkeypatch.setattr(sensitivity, "MAX_CLASSES", 3)
    s = told(("false_alarm", "i"))
    for k in range(10):
        s.class_of(f"pod/shop/x-{k}")
    assert s.class_of(ONE) == "pod of deployment/shop/chat" and len(s._classes[1]) <= 4
    s.graph = graph("deployment/shop/other owns pod/shop/chat-1")
    assert s.factor(T0, ONE, LATENCY) == 1.0


@pytest.mark.parametrize("pod", ["pod/shop/secretname-7d4f9b5c6d-x2x9z", ONE])
def test_a_redacted_capsule_knows_the_class_of_its_pseudonyms(pod):
    """No name is left, and what was said is still about the class."""
    redaction = _Redaction.__new__(_Redaction)
    redaction.names, redaction.ids = Names(b"key", {"latency"}), {}
    redaction.names.learn(["shop/secretname", "shop/chat"])
    s = told(("false_alarm", "i"), entity=pod)
    text = json.dumps(redaction.walk(s.state()))
    assert "shop" not in text and "chat" not in text and "secretname" not in text
    again = Sensitivity()
    names = redaction.names
    again.graph = graph(f"{names.entity('deployment/shop/chat')} owns {names.entity(ONE)}")
    again.restore(json.loads(text))
    assert again.factor(T0, names.entity(pod), "latency") == pytest.approx(STEP)


# ------------------------------------------------------------------------------------------------------ the evidence
OF = signals("service//a x", "service//b x")


def samples_until(factor, p=1e-8):
    """After how many samples of that p-value an alert fires."""
    a = Alerting()
    a.moved = lambda at, entity, signal: factor
    for k in range(1, 200):
        out = a.update(frame(k * 60.0, [1.0, 1.0], OF), [Anomaly(k * 60.0, "service//a", "x", 1.0, p, "baseline", 0)])
        if any(x.state == "firing" for x in out):
            return k
    raise AssertionError("blind")


def test_a_class_that_is_called_false_for_ever_is_not_blind():
    """At the upper bound a fault needs twice the samples, and never more."""
    for p in (2e-4, 1e-6, 1e-8, 1e-30):
        assert samples_until(1.0, p) <= samples_until(MOST, p) <= 2 * samples_until(1.0, p) + 1
    assert samples_until(MOST, 1e-300) == 2, "what is beyond doubt needs two samples at any level"
    assert samples_until(LEAST, 1e-6) <= samples_until(1.0, 1e-6)


def test_less_evidence_is_enough_only_while_the_budget_is_kept():
    """Where the level is held below what the budget asks for, a useful verdict has to wait; a false alarm has not."""
    a = Alerting()
    for k in range(10):
        a.update(frame(k * 60.0, [1.0, 1.0], OF), [])
    a.moved = lambda at, entity, signal: LEAST if entity == "service//a" else MOST
    assert a.budget.room and a.needed(600.0, "service//a|x") == LEAST
    a.budget._rates = np.full(len(RUNGS), 1.0) * np.exp(-np.arange(len(RUNGS)))
    a.budget.level = float(RUNGS[0])
    assert not a.budget.room and a.needed(600.0, "service//a|x") == 1.0 and a.needed(600.0, "service//b|x") == MOST


def test_more_evidence_of_one_class_raises_the_level_of_all():
    """The count of what each level would have paged is made with the evidence as it was moved: one budget over all."""
    def level(factor):
        rng, a = np.random.default_rng(3), Alerting()
        a.moved = lambda at, entity, signal: factor if entity == "service//a" else 1.0
        for k in range(6 * 288):
            odd = [Anomaly(k * 300.0, s.entity, "x", 1.0, math.exp(-6.9 - rng.exponential(8.0)), "baseline", s.id)
                   for s in OF if rng.random() < 0.2]
            a.update(frame(k * 300.0, [1.0, 1.0], OF), odd)
        return a.level
    assert level(LEAST) > level(1.0) > level(MOST)


# ------------------------------------------------------------------------------------------------------- end to end
def play(words, ticks=400, masks=None):
    """Pods of one deployment of which each in turn is slow for a while; at tick 200 people speak of what was found."""
    p = build.pipeline(meaning.shipped(), (), "observe", ("baseline",), masks=masks)
    feed, reports, known = Feed(), [], {}
    for k in range(ticks):
        slow = ONE if 130 <= k < 150 else TWO if 300 <= k < 320 else ""
        row = {f"{e} app_latency": 1 + 0.01 * (k * n % 7) + (9 if e == slow else 0) for n, e in ((3, ONE), (5, TWO), (4, OTHER))}
        spoken = tuple(said(words, i, T0 + k * STEP_S) for i in known) if k == 200 and words else ()
        reports.append(p.step(feed.batch(T0 + k * STEP_S, row, commands=spoken, links=None if k else CHAT_LINKS)))
        known.update((i.id, i) for i in reports[-1].incidents)
    return p, reports, known


@pytest.mark.slow
def test_what_is_said_of_one_pod_holds_for_the_next():
    """Through the pipeline: the sibling's fault is found all the same, on less or on more evidence."""
    found = {}
    for words in ("", "useful", "false_alarm"):
        p, reports, known = play(words, 330)
        assert {e for i in known.values() for e in i.entities} == {ONE, TWO}, words
        found[words] = p.alerting.needed(reports[-1].at, f"{TWO}|app_latency") / p.alerting.habits.scale(f"{TWO}|app_latency")
    assert found["useful"] < found[""] == 1.0 < found["false_alarm"] <= STEP


def test_it_survives_a_restart_with_what_people_said():
    """In the memory of the masks; one of an earlier version, which knew nothing of it, is read."""
    p, reports, _ = play("false_alarm", 250)
    kept = json.loads(json.dumps(p.masks.state()))
    again = Masks()
    again.restore(kept)
    assert again.sensitivity.rows(reports[-1].at) == p.masks.sensitivity.rows(reports[-1].at) != []
    again.restore({k: v for k, v in kept.items() if k != "sensitivity"})
    assert again.sensitivity.rows(reports[-1].at) == []
