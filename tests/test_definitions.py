"""One signal, several definitions: which of them serves, what it means, and what its former name leads to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import T0, Feed, pipeline

from aiops import meaning, yamlfile
from aiops.meaning import Meanings, Pack
from aiops.signals import Door
from aiops.types import Incident
from aiops.yamlfile import Problems

LLM = {"pack": "llm", "terms": {"wait": {"unit": "seconds", "direction": "up", "min_effect": {"abs": 0.2}, "was": "delay"}}}
A = {"pack": "a", "metrics": {"a_s": {"kind": "counter"}, "a_n": {"kind": "counter"}},
     "signals": {"wait": {"mean": ["a_s", "a_n"]}}}
B = {"pack": "b", "metrics": {"b_us": {"kind": "gauge"}}, "signals": {"wait": {"value": "b_us", "scale": 1e-6}}}


def meanings(*packs: dict[str, Any]) -> Meanings:
    return Meanings(tuple(Pack.model_validate(p) for p in packs))


def play(known: Meanings, *ticks: dict[str, float]) -> tuple[dict[str, float], Door]:
    """`"service//x metric"` -> value, tick by tick ten seconds apart; entity and signal -> value in the last one."""
    door, feed = Door(known), Feed()
    for k, tick in enumerate(ticks):
        values = door.values(feed.batch(100.0 + 10 * k, tick))
    return {f"{s.entity} {s.key}": float(v) for s, v in zip(door.signals, values, strict=True)}, door


def test_each_entity_is_served_by_the_definition_it_has_series_for() -> None:
    """One name and one unit: a mean here, a gauge in microseconds there."""
    out, door = play(meanings(LLM, A, B), {"service//x a_s": 0, "service//x a_n": 0, "service//y b_us": 1e5},
                     {"service//x a_s": 3, "service//x a_n": 6, "service//y b_us": 2e5})
    assert out == pytest.approx({"service//x wait": 0.5, "service//y wait": 0.2})
    assert {(s.unit, s.direction, s.min_abs) for s in door.signals} == {("seconds", "up", 0.2)}


def test_definitions_of_different_forms_do_not_mix() -> None:
    """Where one entity has series for both the first that is present wins; the other is left out, and counted."""
    both = {"service//x b_us": 2e5, "service//x a_s": 1, "service//x a_n": 1}
    out, door = play(meanings(LLM, A, B), both, {**both, "service//x a_s": 9, "service//x a_n": 2})
    assert out == pytest.approx({"service//x wait": 0.2})
    assert door.dropped == {"defined_otherwise": 2}


def test_definitions_of_one_form_add_up_unless_they_stand_alone() -> None:
    """A counter that is written under two names is counted once where its pack says so."""
    def known(**more: Any) -> Meanings:
        return meanings({"pack": "a", "metrics": {"old": {"kind": "counter"}, "new": {"kind": "counter"}},
                         "signals": {"r": {"rate": "new", "or": [{"rate": "old", **more}], **more}}})
    ticks = {"service//x old": 0, "service//x new": 0}, {"service//x old": 50, "service//x new": 50}
    assert play(known(), *ticks)[0] == {"service//x r": 10.0}
    assert play(known(alone=True), *ticks)[0] == {"service//x r": 5.0}


def test_a_share_of_part_and_rest() -> None:
    """Failures beside successes: 1 and 3 make a quarter; nothing but failures is all, not a division by zero."""
    known = meanings({"pack": "a", "metrics": {"bad": {"kind": "counter"}, "good": {"kind": "counter"}},
                      "signals": {"share": {"ratio": ["bad", "good"], "rest": True}}})
    ticks = ({"service//x bad": 0, "service//x good": 0}, {"service//x bad": 1, "service//x good": 3},
             {"service//x bad": 5, "service//x good": 3})
    assert play(known, *ticks[:2])[0]["service//x share"] == 0.25
    assert play(known, *ticks)[0]["service//x share"] == 1.0


def test_a_pack_of_ones_own_adds_a_definition_or_replaces_one() -> None:
    """Over other raw metrics it stands beside the shipped one; over the same it takes its place."""
    beside = meanings(LLM, A, B)
    assert [d.parts[0].metric for d in beside.definitions["wait"]] == ["a_s", "b_us"]
    mine = {"pack": "mine", "signals": {"wait": {"value": "b_us", "scale": 1e-3}}}
    assert [d.scale for d in meanings(LLM, A, B, mine).definitions["wait"]] == [1.0, 1e-3]


def test_who_describes_a_signal_last_does_it_for_all_definitions() -> None:
    """One name has one meaning, or the same figure would be judged differently on two pods."""
    mine = {"pack": "mine", "terms": {"wait": {"min_effect": {"abs": 2.0}}}}
    known = meanings(LLM, A, B, mine)
    assert {(d.unit, d.min_effect.abs) for d in known.definitions["wait"]} == {("seconds", 2.0)}
    assert known.signals["wait"].direction == "up"


def test_a_former_name_leads_to_the_signal() -> None:
    """Unless something else has that name by now."""
    assert meanings(LLM, A).current("delay") == "wait"
    assert meanings(LLM, A).current("wait") == "wait"
    other = {"pack": "o", "metrics": {"d": {"kind": "gauge"}}, "signals": {"delay": {"value": "d"}}}
    assert meanings(LLM, A, other).current("delay") == "delay"


def test_labels_get_the_name_that_all_packs_use() -> None:
    """The first that is there is taken; who has the name already keeps it, so that two series do not become one."""
    known = meanings({"pack": "a", "labels": {"model": ["requested", "deployed"]}, "metrics": {"m": {"kind": "gauge"}}})
    target = {"namespace": "n", "pod": "p"}
    assert known.entity("m", {**target, "deployed": "x"}) == ("pod/n/p", {"model": "x"})
    assert known.entity("m", {**target, "deployed": "x", "requested": "y"}) == ("pod/n/p", {"deployed": "x", "model": "y"})
    assert known.entity("m", {**target, "model": "z", "requested": "y"})[1] == {"model": "z", "requested": "y"}
    assert known.entity("other", {**target, "deployed": "x"})[1] == {"deployed": "x"}


def test_a_metric_that_is_called_like_a_former_name_is_watched() -> None:
    """Somebody's own metric is not swallowed because a signal once had its name."""
    assert play(meanings(LLM, A), {"service//x delay": 3.0}, {"service//x delay": 4.0})[0] == {"service//x delay": 4.0}


def test_a_restart_goes_on_with_the_same_columns() -> None:
    """Scale and definition come back with the first series; the counters go on from the last sample."""
    known = meanings(LLM, A, B)
    tick = {"service//x a_s": 10.0, "service//x a_n": 5.0, "service//y b_us": 1e5}
    _, before = play(known, tick, tick)
    door, feed = Door(known), Feed()
    door.restore(before.state(), range(len(before.signals)))
    out = door.values(feed.batch(120.0, {"service//y b_us": 3e5, "service//x a_s": 13.0, "service//x a_n": 6.0}))
    assert [s.entity for s in door.signals] == [s.entity for s in before.signals]
    np.testing.assert_allclose(out, [3.0, 0.3] if door.signals[0].entity == "service//x" else [0.3, 3.0])


@pytest.mark.parametrize(("signal", "said"), [
    ("{value: m, rest: true}", "rest belongs to ratio. Remove it, or write ratio: [part, rest]."),
    ("{value: m, scale: 0}", "must be more than 0"), ("{value: m, or: [{}]}", "exactly one of"),
    ("{value: m, or: [{value: m, unit: s}]}", "unknown key"), ("{value: m, limit: {at: 1}}", "a limit is reached from one side")])
def test_mistakes_in_definitions_are_told(signal: str, said: str) -> None:
    """With the file, the line and the place."""
    [document] = yamlfile.parse(f"pack: p\nmetrics: {{m: {{kind: gauge}}}}\nsignals:\n  s: {signal}\n", "p.yaml")
    with pytest.raises(Problems, match=r"p\.yaml:4: ") as e:
        yamlfile.validate(document, Pack)
    assert said in str(e.value)


def test_policies_may_use_former_names() -> None:
    """What was `kv_cache_usage_ratio` until the packs of engines were brought together is measured under that name, too."""
    known = meaning.shipped()
    assert known.current("tokens_per_second") == "generated_tokens_per_second"
    p, feed = pipeline(), Feed()
    for k in range(3):
        p.step(feed.batch(T0 + 10 * k, {'service//chat vllm:kv_cache_usage_perc{model="m"}': 0.9 + 0.01 * k}))
    incident = Incident("i", T0, T0, "open", "warning", ("service//chat",), ())
    for name in ("kv_cache_usage_ratio", "kv_cache_used_ratio", "vllm:kv_cache_usage_perc"):
        assert p.evidence.measure(name, incident) == pytest.approx(0.92)
