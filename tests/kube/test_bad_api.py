"""A real API server behind a proxy that misbehaves: each write is done once or not at all, each doubt is named, nothing is hot.

The audit log of the API server says what was done, the proxy what was asked and when. Time is simulated: nothing waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kube import proxy as broken
from kube.controlplane import Control
from kube.proxy import Answer, Proxy
from kube.world import World

from aiops import plugins
from aiops.clock import ManualClock
from aiops.cluster.actuator import LiveActuator
from aiops.cluster.checks import not_paused
from aiops.cluster.kubernetes import KubernetesCluster, connect
from aiops.cluster.ownership import hands_off
from aiops.cluster.quiet import Quiet
from aiops.store.intents import Intents
from aiops.types import Action, Outcome

TURNS = 300
KINDS: dict[str, tuple[str, dict[str, object], str]] = {
    "patch": ("ScaleUp", {"deployment": "api", "replicas": "+2"}, "PATCH .*/deployments/api/scale"),
    "evict": ("Evict", {"pod": "api-0"}, "POST .*/pods/api-0/eviction"),
    "create": ("RunJob", {"job": "fix", "image": "fix:1.0"}, "POST .*/jobs"),
    "delete": ("RunJob", {"job": "fix", "image": "fix:1.0"}, "DELETE .*/jobs/")}
"""How each verb comes about, and the request in which it is written."""


class Hand:
    """An actuator whose every request goes through the proxy; it works as the user `aiops`, in simulated time."""

    def __init__(self, control: Control, world: World, folder: Path, patience_s: float = 600.0,
                 timeout_s: tuple[float, float] = (5.0, 30.0)) -> None:
        self.control, self.world, self.clock = control, world, ManualClock(world.at)
        self.proxy = Proxy(control, self.clock.monotonic)
        kubeconfig = self.proxy.kubeconfig("by-proxy", "aiops-token")
        api = connect(kubeconfig, timeout_s=timeout_s, quiet=Quiet(self.clock.monotonic, 0))
        api._client.user_agent = self.agent = folder.name
        self.ledger = Intents(folder / "actions.sqlite")
        self.actuator = LiveActuator(KubernetesCluster(api), self.clock, self.ledger, checks=[not_paused, hands_off],
                                     patience_s=patience_s)

    def action(self, kind: str, key: str = "a-1") -> Action:
        name, example, _ = KINDS[kind]
        target = plugins.load_type("remediations", name).target.model_validate(example)
        return Action(key, name, target.entity("shop"), {**target.params(), "max_unavailable": 1}, "i", "p", "act", "",
                      self.world.at)

    def does(self, *actions: Action) -> list[Outcome]:
        """Until each has ended."""
        self.actuator.submit(actions)
        ended: list[Outcome] = []
        for _ in range(TURNS):
            wait_s = self.actuator.run_due()
            ended += self.actuator.collect()
            if len(ended) == len(actions):
                return ended
            assert wait_s is not None
            self.world.tend()
            self.clock.sleep_until(self.clock.now() + wait_s)
        raise AssertionError(f"never ended: {ended}, {[a.what for a in self.proxy.asked][-20:]}")

    def wrote(self) -> Counter[str]:
        """What was carried out, as the API server's own audit log has it."""
        found = [r for r in self.control.audit.settled("aiops") if r.agent == self.agent and r.writes and r.code < 300]
        return Counter(f"{r.verb} {r.resource}{'/' + r.sub if r.sub else ''}" for r in found)


@pytest.fixture
def hand(quiet: Control, world: World, tmp_path: Path) -> Iterator[Hand]:
    world.reset()
    made = Hand(quiet, world, tmp_path)
    with made.proxy:
        yield made
    made.ledger.close()


def begun(hand: Hand, kind: str) -> Action:
    """The action whose write is of this kind: what is deleted was made before."""
    action = hand.action(kind)
    if kind != "delete":
        return action
    assert [o.status for o in hand.does(action)] == ["done"]
    return replace(action, id="a-1-undo", state="undo", params={**action.params, "undo_of": "a-1"})


WRITTEN = {"patch": "patch deployments/scale", "evict": "create pods/eviction", "create": "create jobs", "delete": "delete jobs"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", [broken.lost, broken.torn, broken.halved], ids=lambda a: a.__name__)
def test_a_write_whose_answer_is_lost_is_looked_up_and_not_repeated(hand: Hand, kind: str, answer: Answer) -> None:
    """It was carried out, and the object says so."""
    action = begun(hand, kind)
    before, fault = hand.wrote(), hand.proxy.fault(KINDS[kind][2], answer)
    [outcome] = hand.does(action)
    assert (outcome.status, len(fault.took)) == ("undone" if kind == "delete" else "done", 1), outcome
    assert hand.wrote() - before == Counter([WRITTEN[kind]])


def some(of: Mapping[str, object], *every: str) -> list[tuple[str, str]]:
    """Each of them with a patch, and these with every verb."""
    return [(how, kind) for how in of for kind in KINDS if kind == "patch" or how in every]


DOUBTS: dict[str, Answer] = {
    "cut in the middle of the request": broken.unsent, "cut before": broken.refused,
    "500": broken.says(500, text="etcdserver: request timed out"), "504": broken.says(504),
    "a gateway's 503": broken.says(503, b"upstream reset"), "a gateway's 502": broken.says(502, b"<html>"),
    "2xx of somebody else": broken.says(200, b"<html>please log in</html>")}


@pytest.mark.parametrize(("how", "kind"), some(DOUBTS, "cut in the middle of the request", "500", "a gateway's 503"))
def test_a_write_of_which_nobody_knows_is_unknown_and_not_repeated(hand: Hand, kind: str, how: str) -> None:
    """The object is as it was, which may change while the request is on its way: so it is not asked for again."""
    action = begun(hand, kind)
    before, fault = hand.wrote(), hand.proxy.fault(KINDS[kind][2], DOUBTS[how])
    [outcome] = hand.does(action)
    assert (outcome.status, len(fault.took)) == ("unknown", 1), outcome
    assert outcome.reason.endswith("it may have been done and is not repeated")
    assert hand.wrote() == before


def test_an_answer_after_the_timeout_is_not_waited_for(quiet: Control, world: World, tmp_path: Path) -> None:
    """The write took effect meanwhile: done, once. Where the look at it is late as well: unknown."""
    world.reset()
    for number, (late, status) in enumerate((("PATCH .*", "done"), ("(PATCH|GET) .*/deployments/api", "unknown"))):
        (tmp_path / f"late-{number}").mkdir()
        hand = Hand(quiet, world, tmp_path / f"late-{number}", timeout_s=(5.0, 2.0))
        with hand.proxy as proxy:
            def slow(proxy: Proxy, asked: Any, client: Any, late: str = late) -> None:
                proxy.fault(late, broken.held)
                broken.held(proxy, asked, client)
            first = proxy.fault(KINDS["patch"][2], slow, 1)
            [outcome] = hand.does(hand.action("patch", f"late-{number}"))
        assert (outcome.status, len(first.took)) == (status, 1), outcome
        assert hand.wrote() == Counter([WRITTEN["patch"]])
        hand.ledger.close()


TURNED_DOWN: dict[str, tuple[Answer, float]] = {
    "429": (broken.says(429, Retry_After="7"), 7.0), "429 at once": (broken.says(429, Retry_After="0"), 1.0),
    "503 of its own": (broken.says(503), 5.0)}


@pytest.mark.parametrize(("how", "kind"), some(TURNED_DOWN, "429"))
def test_what_was_turned_down_for_now_is_done_later_once(hand: Hand, kind: str, how: str) -> None:
    """Nothing was changed, and the server says so: again when it said, and never within a second."""
    answer, after_s = TURNED_DOWN[how]
    action = begun(hand, kind)
    hand.proxy.calm()
    before, fault = hand.wrote(), hand.proxy.fault(KINDS[kind][2], answer, 2)
    [outcome] = hand.does(action)
    assert outcome.status in ("done", "undone"), outcome
    times = [a.at for a in hand.proxy.matching(KINDS[kind][2])]
    assert len(fault.took) == 2 and len(times) == 3
    assert min(b - a for a, b in pairwise(times)) >= after_s
    assert hand.wrote() - before == Counter([WRITTEN[kind]])


READ_TROUBLES: dict[str, Answer] = {
    "500": broken.says(500), "429": broken.says(429), "cut": broken.refused, "torn": broken.torn, "half an object": broken.halved,
    "a page": broken.says(200, b"<html>"), "another object": broken.says(200, {"kind": "Status", "status": "Success"}),
    "null": broken.says(200, b"null")}


@pytest.mark.parametrize(("how", "kind"), [*some(READ_TROUBLES), ("half an object", "evict"), ("null", "evict")])
def test_what_cannot_be_read_is_read_again_and_never_taken_for_nothing(hand: Hand, kind: str, how: str) -> None:
    """Each first look at each kind of object fails, and each first dry run: done once all the same."""
    action = begun(hand, kind)
    for what in ("GET .*/api$", "GET .*/api-0$", "GET .*/namespaces/shop$", "GET .*autoscalers", "trial "):
        hand.proxy.fault(what, READ_TROUBLES[how], 1)
    [outcome] = hand.does(action)
    assert outcome.status == "done", outcome
    assert sum(len(f.took) for f in hand.proxy.faults) >= 3
    assert hand.wrote() == Counter([WRITTEN[kind]])


@pytest.mark.parametrize(("kind", "target", "said"), [
    ("evict", "pod/shop/selector:app=nobody", "no pod in namespace shop matches app=nobody."),
    ("evict", "pod/shop/gone", "pod/shop/gone does not exist."),
    ("patch", "deployment/shop/gone", "deployment/shop/gone does not exist."),
    ("patch", "deployment/nowhere/api", "deployment/nowhere/api does not exist.")])
def test_a_target_that_is_not_there_is_refused_by_name(hand: Hand, kind: str, target: str, said: str) -> None:
    """Nothing is written."""
    [outcome] = hand.does(replace(hand.action(kind), target=target))
    assert (outcome.status, outcome.reason) == ("refused", said)
    assert hand.wrote() == Counter()


def test_a_404_of_somebody_else_is_no_object_that_is_gone(hand: Hand) -> None:
    """A gateway's error page would else end an eviction as done, and lift a stop."""
    hand.proxy.fault("GET .*/pods/api-0", broken.says(404, b"default backend - 404"))
    [outcome] = hand.does(hand.action("evict"))
    assert outcome.status == "refused" and "is not of the API server, or it does not know this kind" in outcome.reason
    assert hand.wrote() == Counter()


def test_a_pod_that_vanishes_between_plan_and_write_is_gone_enough(hand: Hand) -> None:
    """At the dry run, and at the write: it was to go, and is gone. Nothing of its name is touched."""
    for number, (when, asked) in enumerate((("trial POST", 1), ("POST", 1))):
        hand.world.reset()

        def vanishes(proxy: Proxy, asked: Any, client: Any) -> None:
            hand.control.admin.delete("pods", "shop", "api-0", gracePeriodSeconds=0)
            broken.passed(proxy, asked, client)
        fault = hand.proxy.fault(f"{when} .*/eviction", vanishes, asked)
        [outcome] = hand.does(hand.action("evict", f"a-{number}"))
        assert (outcome.status, len(fault.took)) == ("done", 1), outcome
    assert hand.wrote() == Counter()


def test_a_budget_that_forbids_is_named_when_it_is_given_up(quiet: Control, world: World, tmp_path: Path) -> None:
    """A real disruption budget: asked again politely, then failed, in the API server's words; the pod stays."""
    world.reset()
    body = {"metadata": {"name": "all"}, "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "api"}}}}
    quiet.admin.create("poddisruptionbudgets", body, "shop")
    try:
        hand = Hand(quiet, world, tmp_path, patience_s=60.0)
        with hand.proxy as proxy:
            [outcome] = hand.does(hand.action("evict"))
        assert outcome.status == "failed" and "disruption budget" in outcome.reason, outcome
        assert 2 <= len(proxy.matching("trial POST .*/eviction")) <= 8
        assert hand.wrote() == Counter()
        hand.ledger.close()
    finally:
        quiet.admin.delete("poddisruptionbudgets", "shop", "all")


FAILING: dict[str, tuple[str, Answer]] = {
    "dry runs end with 500": ("trial PATCH", broken.says(500)),
    "reads are throttled": ("GET .*/api$", broken.says(429, Retry_After="0")),
    "reads are cut": ("GET .*/api$", broken.refused), "answers are half": ("GET .*/api$", broken.halved)}


@pytest.mark.parametrize("how", FAILING)
def test_however_many_wait_a_failing_endpoint_is_asked_once_a_second_at_most(quiet: Control, world: World, tmp_path: Path,
                                                                            how: str) -> None:
    """Three actions at once, for half a minute; then each ends with the reason."""
    what, answer = FAILING[how]
    hand = Hand(quiet, world, tmp_path, patience_s=30.0)
    with hand.proxy as proxy:
        fault = proxy.fault(what, answer)
        outcomes = hand.does(*(hand.action("patch", f"a-{n}") for n in range(3)))
    assert {o.status for o in outcomes} == {"failed"} and all("gave up after 30 s: " in o.reason for o in outcomes), outcomes
    times = [a.at for a in fault.took]
    assert min(b - a for a, b in pairwise(times)) >= 1.0
    assert 3 <= len(times) <= 15
    assert hand.wrote() == Counter()
    hand.ledger.close()
