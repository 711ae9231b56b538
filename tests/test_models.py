"""What a model is called, who may read what it learned, and what follows when version or settings change."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import STEP_S, T0, frame, signals
from toys import MIGRATE, Toys, forget, toys

from aiops import models
from aiops.generations import Generations, Models, generations
from aiops.models import Lineage, Model, Saved, Unusable, model_id, picked, revived, still_there
from aiops.types import Action, Alert, Command, Incident

__all__ = ["toys"]
OF = signals("service//a x", "service//b y")
DAY = 86_400.0


def feed(to, start, count, values=(10.0, 10.0), held=(), step_s=STEP_S):
    """Frames k = start … start + count - 1; what was found in them."""
    learn = [s.entity not in held for s in OF]
    return [a for k in range(start, start + count) for a in to.observe(frame(T0 + k * step_s, values, OF, learn))]


def after(g, start, count, values=(10.0, 10.0), incidents=(), commands=(), step_s=STEP_S):
    """The same as whole steps: the events."""
    events = []
    for k in range(start, start + count):
        g.observe(frame(T0 + k * step_s, values, OF))
        events += g.review(T0 + k * step_s, incidents, commands)
    return events


def taught(settings=None, count=10):
    model = Model("toy", settings)
    feed(model, 0, count)
    return model


def begun(kept, settings=None):
    """What a daemon that is configured like this makes of what was kept, and what it says."""
    g = generations("toy", settings)
    g.begin(kept if isinstance(kept, Lineage) else Lineage(kept.saved()), None, math.inf)
    return g


def told(g):
    return [(e.kind, e.text) for e in g.review(T0, (), ())]


# ---------------------------------------------------------------------------------------------------------------- ids
def test_an_id_names_detector_version_and_settings():
    """Four hex digits that change with any setting, and not with their order."""
    assert model_id("baseline", 2, {}) == "baseline-v2-4413"
    ids = {model_id("x", v, s) for v in (1, 2) for s in ({}, {"a": 1}, {"a": 2}, {"a": 1, "b": 2})}
    assert len(ids) == 8
    assert model_id("x", 1, {"a": 1, "b": 2}) == model_id("x", 1, {"b": 2, "a": 1})


def test_defaults_are_settings_too(toys: Toys):
    """Given or not: the same value is the same model; and a default that changes in the code is another."""
    assert Model("toy").id == Model("toy", {"limit": 20.0}).id != Model("toy", {"limit": 21.0}).id
    assert Model("toy").settings == {"limit": 20.0}
    assert Model("newcomer").settings == {}


@pytest.mark.parametrize(("name", "given", "why"), [
    ("newcomer", {"x": 1}, "newcomer: takes no settings"),
    ("toy", {"limt": 1}, "toy: its settings are not understood: limt: Extra inputs are not permitted"),
])
def test_settings_that_are_not_understood_are_refused(toys: Toys, name, given, why):
    """By the name of the detector, with what is wrong."""
    with pytest.raises(Unusable) as caught:
        Model(name, given)
    assert str(caught.value) == why


# --------------------------------------------------------------------------------------------------- learning once
def test_frames_that_were_learned_from_are_passed_over(toys: Toys):
    """History may come once more after a restart."""
    model = taught()
    again = revived(model.saved(), None, math.inf)
    assert feed(again, 0, 10, (99.0, 99.0)) == [] and again.detector.n.tolist() == model.detector.n.tolist()
    assert len(feed(again, 10, 1, (99.0, 10.0))) == 1


def test_a_time_that_has_not_come_yet_does_not_stop_it(toys: Toys):
    """The clock was wrong when it was saved: it goes on from now."""
    kept = Saved("toy", 1, {}, T0 + 9e9, taught().saved().state)
    assert len(feed(revived(kept, None, T0), 1, 1, (99.0, 10.0))) == 1


# ---------------------------------------------------------------------------------------------- versions and settings
def test_nothing_changed_it_goes_on(toys: Toys):
    """No candidate, no word."""
    g = begun(taught())
    assert (g.id, g.candidate, g.fresh, told(g)) == (Model("toy").id, None, False, [])
    assert g.serving.detector.n[:2].tolist() == [10, 10]


def test_changed_settings_run_in_the_shadow_of_the_old(toys: Toys):
    """What is kept serves with its settings; only its anomalies go on."""
    g = begun(taught({"limit": 50.0}), {"limit": 20.0})
    assert [g.serving.settings, g.candidate.settings] == [{"limit": 50.0}, {"limit": 20.0}]
    old, new = g.id, g.candidate.id
    assert told(g) == [("shadow", f"{new} is tried in the shadow of {old}")]
    feed(g, 10, 5)
    assert feed(g, 15, 1, (30.0, 10.0)) == [] and len(feed(g, 16, 1, (60.0, 10.0))) == 1


def test_a_version_without_a_way_to_read_the_old_learns_anew_and_says_so(toys: Toys):
    """Its code is gone: the new one serves, honest about knowing nothing."""
    kept = taught()
    toys.write(version=2)
    g = begun(kept)
    assert g.fresh and g.candidate is None and g.id.startswith("toy-v2-")
    assert told(g) == [("fresh", f"{g.id} serves and learns anew: toy: what was learned is of version 1, and this aiops has "
                                 "version 2 only")]


def test_a_version_that_can_read_the_old_takes_over_what_it_learned(toys: Toys):
    """`migrate` turns the state into its own; from a version that it does not know it learns anew."""
    kept = taught()
    toys.write(version=2, key="m", more=MIGRATE)
    g = begun(kept)
    assert not g.fresh and g.serving.detector.n[:2].tolist() == [10, 10]
    assert told(g) == [("takeover", f"{g.id} took over what {kept.id} had learned: that code is gone")]
    assert begun(Lineage(Saved("toy", 0, {}, T0, {"n": np.zeros(2)}))).fresh


def test_a_version_whose_code_was_kept_serves_while_the_new_one_is_tried(toys: Toys):
    """`detectors/_toy_v1.py`: the upgrade is a shadow as changed settings are."""
    kept = taught()
    toys.write(version=2)
    toys.keep(1)
    g = begun(kept)
    assert (g.id, g.candidate.id) == (kept.id, Model("toy").id)
    assert g.id.startswith("toy-v1-") and g.candidate.id.startswith("toy-v2-")


def test_a_trial_goes_on_after_a_restart(toys: Toys):
    """Candidate and figures; another configuration ends it, the old one again needs none."""
    g = begun(taught({"limit": 50.0}))
    after(g, 10, 10, (30.0, 10.0))
    assert g.trial.running
    again = begun(g.lineage())
    assert again.trial.state() == g.trial.state() and told(again) == []
    assert again.candidate.detector.n.tolist() == g.candidate.detector.n.tolist()
    other = begun(g.lineage(), {"limit": 40.0})
    assert other.candidate.fresh and not other.trial.running
    assert begun(g.lineage(), {"limit": 50.0}).candidate is None


# ------------------------------------------------------------------------------------------------------ taking over
def incident(name, at, detectors=("toy",), entities=("service//a",), **more):
    alerts = tuple(Alert(f"{e}|x", e, "x", "firing", at, at, 1.0, 1e-9, detectors=detectors) for e in entities)
    return Incident(name, at, at, "open", "warning", entities, alerts, **more)


def on_trial(old=50.0, new=20.0):
    """A candidate that has just become ready; steps are an hour apart from here."""
    g = begun(taught({"limit": old}), {"limit": new})
    after(g, 10, 4)
    assert g.trial.running and told(g) == []
    return g


HOUR = 3600.0


def test_a_candidate_that_is_not_worse_takes_over_after_a_day(toys: Toys):
    """Not an hour before; the former is kept as it was then, and the reason is told with the figures."""
    g = on_trial(new=40.0)
    old, new = g.id, g.candidate.id
    assert T0 < g.trial.began < T0 + HOUR and after(g, 1, 24, step_s=HOUR) == []
    events = after(g, 25, 1, step_s=HOUR)
    assert [(e.kind, e.model, e.detector) for e in events] == [("takeover", new, "toy")]
    assert events[0].text == (f"{new} took over from {old}: 25 h side by side; 0 anomalies on quiet time against 0 "
                              "(at most 3.0), 0 of 0 proven incidents found")
    assert (g.id, g.previous.id, g.candidate, g.since) == (new, old, None, T0 + 25 * HOUR)
    n = g.previous.state["n"].copy()
    after(g, 26, 5, step_s=HOUR)
    assert g.previous.state["n"].tolist() == n.tolist(), "it learns nothing meanwhile"


def test_a_noisier_candidate_stays_and_says_why(toys: Toys):
    """Four episodes on quiet time against none are more than chance allows; it is judged again every day."""
    g = on_trial()
    old, new = g.id, g.candidate.id
    events = [e for k in range(1, 60) for e in after(g, k, 1, (30.0, 10.0) if k % 4 == 0 else (10.0, 10.0), step_s=HOUR)]
    assert [(e.kind, e.model) for e in events] == [("kept", new)] * 2
    assert events[0].text.startswith(f"{new} stays in the shadow of {old}: 25 h side by side; 6 anomalies on quiet time")
    assert (g.id, g.candidate.id, g.previous) == (old, new, None)


def test_a_candidate_that_misses_a_proven_incident_stays(toys: Toys):
    """It is quieter, and blind: what people called useful, or a policy acted on, it must have seen."""
    for proof in ("useful", "acted", "false_alarm", "nobody"):
        g = on_trial(old=20.0, new=50.0)
        at = T0 + HOUR
        act = Action("a", "Restart", "service//a", {}, "i", "p", "act", "", at)
        found = incident("i", at, actions=(act,) if proof != "nobody" and proof != "useful" else ())
        said = [Command(at, proof, "i")] if proof in ("useful", "false_alarm") else []
        events = after(g, 1, 1, (30.0, 10.0), [found], said, HOUR) + after(g, 2, 30, step_s=HOUR)
        assert [e.kind for e in events] == (["kept"] if proof in ("useful", "acted") else ["takeover"]), proof
        if proof == "useful":
            assert events[0].text.endswith("0 of 1 proven incidents found")


def test_a_candidate_that_saw_the_incident_as_well_takes_over(toys: Toys):
    """On any entity of it, while it was open or shortly before."""
    g = on_trial(old=20.0, new=25.0)
    at = T0 + HOUR
    events = after(g, 1, 1, (30.0, 10.0), [incident("i", at)], [Command(at, "useful", "i")], HOUR)
    events += after(g, 2, 30, step_s=HOUR)
    assert [e.kind for e in events] == ["takeover"] and "1 of 1 proven incidents found" in events[0].text


def test_what_others_found_is_not_asked_of_it(toys: Toys):
    """An incident without the serving model's part says nothing about its candidate."""
    g = on_trial(old=20.0, new=50.0)
    at = T0 + HOUR
    after(g, 1, 1, incidents=[incident("i", at, ("logs",))], commands=[Command(at, "useful", "i")], step_s=HOUR)
    assert [e.kind for e in after(g, 2, 30, step_s=HOUR)] == ["takeover"]


def test_the_day_begins_when_the_candidate_is_ready(toys: Toys):
    """For 95 % of what the serving model is ready for."""
    g = begun(taught({"limit": 50.0}))
    assert after(g, 20, 40, (10.0, math.nan), step_s=HOUR)[1:] == [] and not g.trial.running
    after(g, 60, 2, step_s=HOUR)
    assert not g.trial.running
    after(g, 62, 1, step_s=HOUR)
    assert g.trial.began == T0 + 62 * HOUR


def test_a_candidate_that_fails_is_dropped_and_nothing_else_happens(toys: Toys):
    """The watch goes on; what it broke on is told."""
    g = on_trial()
    g.candidate.detector.observe = lambda frame: 1 / 0
    events = after(g, 20, 2, (60.0, 10.0))
    assert [(e.kind, e.text.split(": ", 1)[1]) for e in events] == [("dropped", "ZeroDivisionError: division by zero")]
    assert g.candidate is None and len(feed(g, 22, 1, (60.0, 10.0))) == 1


# ------------------------------------------------------------------------------------------------ people have a say
def say(g, verb, target="toy", k=1000):
    return [(e.kind, e.model) for e in g.review(T0 + k, (), [Command(T0 + k, verb, target, "ann")])]


def test_one_word_takes_a_takeover_back(toys: Toys):
    """The former serves as it was; the one that was taken back is not tried again by itself, and a second word calls it."""
    g = on_trial(new=40.0)
    old, new = g.id, g.candidate.id
    after(g, 1, 25, step_s=HOUR)
    assert g.id == new
    n = g.previous.state["n"][:2].tolist()
    assert say(g, "rollback") == [("rollback", old)]
    assert (g.id, g.previous.id, g.candidate, g.refused) == (old, new, None, new)
    assert g.serving.detector.n[:2].tolist() == n
    again = begun(g.lineage(), {"limit": 40.0})
    assert (again.id, again.candidate, again.refused) == (old, None, new)
    assert [kind for kind, _ in told(again)] == ["refused"]
    assert say(again, "rollback") == [("rollback", new)] and again.refused == ""
    assert begun(again.lineage(), {"limit": 40.0}).candidate is None


def test_another_configuration_is_tried_although_one_was_taken_back(toys: Toys):
    """Only what a person refused stays refused."""
    g = on_trial(new=40.0)
    after(g, 1, 25, step_s=HOUR)
    say(g, "rollback")
    again = begun(g.lineage(), {"limit": 30.0})
    assert again.candidate.settings == {"limit": 30.0} and again.refused == ""


def test_one_word_lets_the_candidate_serve(toys: Toys):
    """Whatever the figures say; and it can be taken back."""
    g = on_trial()
    old, new = g.id, g.candidate.id
    assert say(g, "promote") == [("promoted", new)]
    assert (g.id, g.previous.id, g.candidate) == (new, old, None)
    assert say(g, "rollback") == [("rollback", old)]


def test_words_that_come_too_late_or_for_others_change_nothing(toys: Toys):
    """Without a candidate, without a former one, or to another detector: told, or none of its business."""
    g = begun(taught())
    assert say(g, "promote") == say(g, "rollback") == [("refused", g.id)]
    assert say(g, "rollback", "baseline") == say(g, "useful") == []


def test_a_former_model_whose_code_is_gone_cannot_be_called_back(toys: Toys):
    """Said when the daemon starts, not when it is needed."""
    g = on_trial(new=40.0)
    after(g, 1, 25, step_s=HOUR)
    kept = g.lineage()
    toys.write(version=2)
    toys.keep(1)
    toys.write(version=3)
    (toys.folder / "_toy_v1.py").unlink()
    again = begun(kept, {"limit": 40.0})
    assert again.previous is None and [kind for kind, _ in told(again)] == ["dropped", "fresh"]


# ---------------------------------------------------------------------------------------------------------- columns
def test_columns_are_picked_where_the_state_has_them():
    """Also in nested maps; what was saved earlier has fewer; the rest is left alone."""
    state = {"n": np.arange(5.0), "season": np.arange(10.0).reshape(2, 5), "tail": {"u": np.arange(3)}, "names": ["a"]}
    out = picked(state, ("n", "season", "tail.u"), np.array([1, 2, 4]))
    assert out["n"].tolist() == [1, 2, 4] and out["season"].tolist() == [[1, 2, 4], [6, 7, 9]]
    assert out["tail"]["u"].tolist() == [1, 2] and out["names"] == ["a"]
    assert state["n"].tolist() == [0, 1, 2, 3, 4]


def test_what_cannot_be_moved_is_not_used_on_other_columns(toys: Toys):
    """Code that does not say what it keeps by signal would mix up whose values they are."""
    kept = taught()
    (toys.folder / "toy.py").write_text((toys.folder / "toy.py").read_text().replace("BY_SIGNAL", "_BY"))
    forget()
    assert not generations("toy").movable
    assert revived(kept.saved(), None, math.inf).detector.n[:2].tolist() == [10, 10]
    with pytest.raises(Unusable, match="toy: version 1 does not say what it keeps by signal, and signals are gone"):
        revived(kept.saved(), np.array([1]), math.inf)


def test_what_was_silent_for_a_week_is_forgotten_and_pods_sooner():
    """Pods, containers and processes do not come back under the name they had."""
    entities = ["node//a", "node//b", "pod/x/a", "pod/x/b", "process//c", "node//never"]
    heard = np.array([T0 - models.KEEP_S, T0 - models.KEEP_S - 1, T0 - models.EPHEMERAL_KEEP_S, T0 - models.EPHEMERAL_KEEP_S - 1,
                      T0, -math.inf])
    assert still_there(np.array([models.ephemeral(e) for e in entities]), heard, T0).tolist() == [0, 2, 4]


# ---------------------------------------------------------------------------------------------------- as a detector
def test_to_everybody_outside_it_is_the_serving_detector():
    """The band of the one that serves, and only where there is one; plain detectors are none of its business."""
    from aiops.pipeline import Banded
    from detectors.absence import Absence

    assert isinstance(generations("baseline"), Banded) and not isinstance(generations("absence"), Banded)
    g = generations("baseline")
    g.observe(frame(T0, (1.0, 2.0), OF))
    assert np.array_equal(g.band, g.serving.detector.band, equal_nan=True) and g.ready_count() == 0
    assert np.array_equal(g.last_p, g.serving.detector.last_p)
    assert not hasattr(generations("absence"), "band")
    assert [type(d) for d in Models([Absence(), g]).all] == [type(g)] and isinstance(g, Generations)
