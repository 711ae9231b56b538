"""How urgent an incident is: who is hurt, what it adds up to, and error budgets that burn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import T0, Feed, alert, frame, graph, links, pipeline, signals

from aiops import config, story
from aiops.rows import columnar
from aiops.slo import KEPT, MOST_WATCHED, Slo, Slos
from aiops.types import Impact, Node, Priority, Signal
from aiops.unused import unused
from aiops.yamlfile import Problems
from correlators.impact import MAX_LISTED, impact
from correlators.priority import level, prioritise

DAY_S = 86_400.0
ERRORS = Slo("answers", "http_error_rate", 0.999)


# --------------------------------------------------------------------------------------------------------- who is hurt
def test_a_pod_matters_as_much_as_what_it_is_a_part_of():
    """Criticality is said of Services and workloads; a pod that says something itself is believed."""
    g = graph("deployment/shop/pay owns pod/shop/pay-1", "service/shop/pay owns pod/shop/pay-1",
              "service/shop/pay owns pod/shop/pay-2",
              nodes=[Node("service/shop/pay", 4.0), Node("deployment/shop/pay", 2.0), Node("pod/shop/pay-2", 0.5)])
    of = ("pod/shop/pay-1", "pod/shop/pay-2", "service/shop/pay", "pod/x/unknown")
    assert [g.critical.get(e, 1.0) for e in of] == [4, 0.5, 4, 1]
    hurt = impact("pod/shop/pay-1", g)
    assert (hurt.entities, hurt.weight, hurt.criticality) == (("service/shop/pay", "deployment/shop/pay"), 10.0, 4.0)


def test_impact_is_bounded_in_names_and_not_in_weight():
    """A node with a hundred pods: fifty names, all the weight."""
    hurt = impact("node//a", graph(*(f"pod/x/p{k} runs_on node//a" for k in range(100))))
    assert (len(hurt.entities), hurt.weight) == (MAX_LISTED, 101.0)


# ------------------------------------------------------------------------------------------------------------ priority
def burning(rate, minutes, specs=(ERRORS,), entity="service//api", before=0.0):
    """Slos after two days of `before` and then so many minutes of `rate`."""
    slos = Slos(specs)
    of = columnar(signals(f"{entity} http_error_rate"))
    for k in range(2 * 1440 + minutes):
        slos.update(frame(T0 + 60.0 * k, [before if k < 2 * 1440 else rate], of))
    return slos


@pytest.mark.parametrize(("severity", "hurt", "burns", "expected"), [
    ("critical", Impact(), (), "P2"), ("warning", Impact(), (), "P3"), ("info", Impact(), (), "P4"),
    ("warning", Impact(criticality=0.4), (), "P4"),
    ("warning", Impact(tuple(f"service//s{k}" for k in range(15)), 15.0), (), "P2"),
    ("critical", Impact(("service//web",), 5.0, 4.0), (), "P1"),
    ("critical", Impact(("service//web", "service//api"), 7.0, requests=10_000.0), (), "P1"),
    ("warning", Impact(), burning(0.05, 30), "P2"), ("critical", Impact(), burning(0.05, 30), "P1")])
def test_what_priority_follows(severity, hurt, burns, expected):
    """A critical signal alone is P2, a warning alone P3; dependants, criticality, requests and burning budgets move it."""
    found = prioritise(severity, hurt, burns.burns({"service//api"}) if burns else ())
    assert found.level == expected
    assert found.score == pytest.approx(sum(r.contribution for r in found.reasons))
    assert all(r.text for r in found.reasons)


def test_each_reason_moves_it_alone():
    """Without one of them the score is less by what it said it adds."""
    hurt = Impact(("service//web", "service//api"), 7.0, 2.0, 120.0)
    burns = burning(0.05, 30).burns({"service//api"})
    whole = prioritise("critical", hurt, burns)
    assert len(whole.reasons) == 5
    others = [replace(hurt, entities=()), replace(hurt, criticality=1.0), replace(hurt, requests=float("nan"))]
    without = [*(prioritise("critical", i, burns) for i in others), prioritise("critical", hurt, ())]
    for less, reason in zip(without, whole.reasons[1:], strict=True):
        assert whole.score - less.score == pytest.approx(reason.contribution)


def test_a_level_does_not_flap():
    """Up at once; down only when the score is clearly below."""
    assert [level(s, "P2") for s in (5.0, 4.99, 2.9, 2.5, 2.4, 0.9)] == ["P1", "P2", "P2", "P2", "P3", "P4"]
    assert level(2.9) == "P3"
    assert level(-9.0) == "P4"


def test_the_most_urgent_of_the_open_come_first():
    """Level, then severity, then score, then the newest; the closed after them; an old form by its severity."""
    def form(name, state="open", severity="warning", opened=0.0, **priority):
        return {"id": name, "state": state, "severity": severity, "opened_at": opened,
                "priority": {"level": "P3", "score": 1.0, **priority}}
    forms = [form("closed", "closed", "critical", level="P1"), form("p3"), form("p3 more", score=2.0), form("p1", level="P1"),
             form("p3 newer", opened=9.0), {"id": "old", "state": "open", "severity": "critical", "opened_at": 0.0}]
    assert [i["id"] for i in sorted(forms, key=story.most_urgent_first)] == [
        "p1", "old", "p3 more", "p3 newer", "p3", "closed"]


# ----------------------------------------------------------------------------------------------------------- objectives
@pytest.mark.parametrize(("rate", "minutes", "rule", "spent"), [
    (0.02, 60, 0, 20 * 3600.0 / (30 * DAY_S)), (0.008, 360, 1, 8 * 6 * 3600.0 / (30 * DAY_S)),
    (0.0030, 2880, 2, 2 * 3600 * 24 * 3 / (30 * DAY_S))])
def test_budgets_burn_as_the_workbook_says(rate, minutes, rule, spent):
    """14.4 times over an hour, 6 times over six, once over three days, of 30 days; with what went in that window."""
    [found] = burning(rate, minutes).burns({"service//api", "service//other"})
    assert (found.slo, found.entity, found.rule) == ("answers", "service//api", rule)
    assert found.rate == pytest.approx(spent * 30 * DAY_S / {0: 3600, 1: 6 * 3600, 2: 3 * DAY_S}[rule], rel=1e-3)
    assert found.spent == pytest.approx(spent, rel=1e-3)


def test_a_budget_that_burned_and_does_not_any_more():
    """The long window still holds it, the short one does not: it is over. And what is slow enough never burns."""
    slos = burning(0.05, 60)
    of = columnar(signals("service//api http_error_rate"))
    assert slos.burns({"service//api"})[0].rule == 0
    for k in range(10):
        slos.update(frame(T0 + 60.0 * (2 * 1440 + 60 + k), [0.0], of))
    assert [b.rule for b in slos.burns({"service//api"})] == [1]  # six hours and half an hour still do
    assert burning(0.0001, 1000).burns({"service//api"}) == ()
    assert slos.burns({"service//other"}) == ()


def test_the_sentence_about_a_budget():
    """Which, how fast, and what went."""
    [found] = burning(0.05, 60).burns({"service//api"})
    assert str(found) == "'answers' spends its error budget 50 times too fast: 6.94 % of that of 30 d in the last 1 h"


def test_levels_as_objectives():
    """Below and above count the share of values that are not good; no value at all is no fault."""
    slow, up = Slo("fast", "ttft", 0.9, below=0.5), Slo("there", "up", 0.9, above=0.5)
    assert [slow.bad(v) for v in (0.4, 0.5, 3.0)] == [0, 1, 1]
    assert [up.bad(v) for v in (1.0, 0.0)] == [0, 1]
    assert [ERRORS.bad(v) for v in (-0.1, 0.3, 7.0)] == [0, 0.3, 1]
    slos, of = Slos([slow]), columnar(signals("deployment/a/chat ttft", "deployment/a/chat other"))
    for k in range(120):
        slos.update(frame(T0 + 30.0 * k, [np.nan if k % 2 else 9.0, 9.0], of))
    assert slos.burns({"deployment/a/chat"}) == ()  # an hour at ten times is not yet 72 times: 2 % of 30 days
    tight = Slos([replace(slow, objective=0.999)])
    for k in range(120):
        tight.update(frame(T0 + 30.0 * k, [np.nan if k % 2 else 9.0, 9.0], of))
    assert tight.burns({"deployment/a/chat"})[0].rate == pytest.approx(1000.0, rel=0.02)


def test_which_signals_an_objective_covers():
    """By a glob over entities; with labels only that one; at most so many, the rest counted."""
    one = Slo("one", 'errors{route="/pay"}', 0.99, entity="service/shop/*")
    of = columnar([Signal(k, entity, "errors", f'route="{route}"') for k, (entity, route) in enumerate(
        [("service/shop/a", "/pay"), ("service/shop/a", "/x"), ("service/b/a", "/pay")])])
    slos = Slos([one])
    slos.update(frame(T0, [1.0, 1.0, 1.0], of))
    assert [key[1:] for key in slos._rows] == [("service/shop/a", 'errors{route="/pay"}')]
    many = columnar(signals(*(f"service//s{k} http_error_rate" for k in range(MOST_WATCHED + 5))))
    wide = Slos([ERRORS])
    wide.update(frame(T0, [0.1] * (MOST_WATCHED + 5), many))
    assert (len(wide._rows), wide._bad.shape) == (MOST_WATCHED, (MOST_WATCHED, KEPT))
    assert wide.notes == ["slos: 'answers' is not watched on service//s200 and 4 others: 200 pairs of an objective and a signal "
                          "are the most. Give the objective an 'entity'."]
    wide.update(frame(T0 + 60.0, [0.1] * (MOST_WATCHED + 5), many))
    assert wide.notes == []


def test_what_was_spent_survives_a_restart_and_is_not_counted_twice():
    """State as plain JSON; the history of the source that comes again changes nothing; a gap empties what it covers."""
    import json

    slos = burning(0.05, 60)
    kept = json.loads(json.dumps(slos.state()))
    later = Slos([ERRORS])
    later.restore(kept)
    of = columnar(signals("service//api http_error_rate"))
    later.update(frame(T0 + 60.0 * (2 * 1440 + 30), [1.0], of))
    assert later.burns({"service//api"}) == slos.burns({"service//api"})
    later.update(frame(T0 + 5 * DAY_S + 60 * 1440.0, [0.0], of))
    assert later.burns({"service//api"}) == ()
    other = Slos([replace(ERRORS, name="renamed")])
    other.restore(kept)
    assert other._rows == {}
    empty = Slos([ERRORS])
    empty.restore(Slos([ERRORS]).state())
    assert empty.burns({"service//api"}) == ()


def test_columns_that_move_are_found_again():
    """After a tidying up of columns the same row goes on."""
    slos = burning(0.05, 30)
    slos.renumber()
    of = columnar(signals("service//new load", "service//api http_error_rate"))
    for k in range(30):
        slos.update(frame(T0 + 60.0 * (2 * 1440 + 30 + k), [5.0, 0.05], of))
    assert slos.burns({"service//api"})[0].rate == pytest.approx(50.0, rel=0.05)


# -------------------------------------------------------------------------------------------------------- configuration
def test_objectives_in_the_configuration(tmp_path):
    """Per cent or share, durations; each mistake at its place."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("sources: [host]\nslos:\n- {name: a, signal: http_error_rate, objective: 99.9%}\n"
                    "- {name: b, signal: ttft, below: 0.5, objective: 0.99, window: 7d, entity: 'service/*'}\n", encoding="utf-8")
    a, b = config.load(good, {}).slos
    assert (a.objective, a.window_s, a.entity) == (pytest.approx(0.999), 30 * DAY_S, "*")
    assert (b.below, b.window_s, b.entity) == (0.5, 7 * DAY_S, "service/*")
    bad.write_text("sources: [host]\nslos:\n- {name: a, signal: x, objective: 100%}\n"
                   "- {name: b, signal: x, objective: 0.9, window: 1d}\n"
                   "- {name: c, signal: x, objective: 0.9, below: 1, above: 2}\n"
                   "- {name: d, signal: x, objective: lots%}\n",
                   encoding="utf-8")
    with pytest.raises(Problems) as found:
        config.load(bad, {})
    told = [str(p) for p in found.value.problems]
    for line, words in ((3, "100% is not between 0 and 100 %. Write 99.9% or 0.999."), (4, "window"), (5, "below or above"),
                        (6, "'lots%' is not a share. Write 99.9% or 0.999.")):
        assert any(f":{line}:" in t and words in t for t in told), (line, words, told)
    bad.write_text("sources: [host]\nslos:\n- {name: a, signal: x, objective: 90%}\n- {name: a, signal: y, objective: 90%}\n",
                   encoding="utf-8")
    with pytest.raises(Problems, match="'a' is there twice"):
        config.load(bad, {})


def test_objectives_that_would_count_something_else(tmp_path):
    """A level taken for a share, a name with a slip: told as a note; what nobody ships may be somebody's own."""
    path = tmp_path / "aiops.yaml"
    path.write_text("sources: [host]\nslos:\n- {name: a, signal: http_latency_seconds, objective: 99%}\n"
                    "- {name: b, signal: 'http_eror_rate{route=\"/pay\"}', objective: 99%}\n"
                    "- {name: c, signal: http_latency_seconds, below: 0.5, objective: 99%}\n"
                    "- {name: d, signal: my_own_share, objective: 99%}\n", encoding="utf-8")
    [(first, level), (second, slip)] = unused(config.load(path, {}))
    assert (first, second) == (("slos", 0, "signal"), ("slos", 1, "signal"))
    assert "no share but seconds" in level and slip.endswith("Did you mean 'http_error_rate'?")


# ------------------------------------------------------------------------------------------------------------ end to end
def test_an_objective_makes_an_incident_urgent():
    """The same failing service with and without an objective: one level more, with the sentence, and told in the timeline."""
    def played(slos):
        p, feed, out = pipeline(), Feed(), []
        p.slos = p.weighing.slos = Slos(slos)
        for k in range(120):
            bad = k >= 60
            noise = float(np.random.default_rng(k).uniform(0.9, 1.1))
            samples = {'service//api http_requests_total{code="200"}': 300.0 * k * noise ** 0.01,
                       'service//api http_requests_total{code="500"}': 90.0 * max(0, k - 59) * bad}
            top = links("service//web calls service//api") if k == 0 else None
            out += p.step(feed.batch(T0 + 15.0 * k, samples, links=top)).incidents
        return out, p
    plain, _ = played(())
    urgent, p = played([ERRORS])
    assert plain and {i.priority.level for i in plain} == {"P2"}
    last = urgent[-1]
    assert last.priority.level == "P1"
    assert any("spends its error budget" in r.text for r in last.priority.reasons)
    assert last.impact.requests == pytest.approx(20.0, rel=0.3)
    assert p.counts().prioritised == 1


def test_what_is_over_keeps_its_priority():
    """A closed incident is not judged anew."""
    from aiops.history import History
    from aiops.past import IncidentMemory
    from aiops.types import Incident
    from aiops.weighing import Weighing

    w = Weighing(History(), Slos(), IncidentMemory())
    new = Incident("inc-1", T0, T0, "open", "critical", ("service//a",), (alert("service//a x"),))
    old = w.weigh(new, None, graph(), columnar(()))
    assert old.priority.level == "P2"
    over = w.weigh(replace(new, state="closed", severity="warning"), old, graph(), columnar(()))
    assert over.priority is old.priority
    assert Priority().level == "P4"
