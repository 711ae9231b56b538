"""Who leads: one at a time, whatever the clocks say, and never for longer than the others believe."""

from __future__ import annotations

import pytest
from fakes.kube_store import Connection, Store

from aiops.clock import ManualClock
from aiops.cluster.lease import Lease
from aiops.interfaces import Ambiguous, Refused, Retry

PATH = "/apis/coordination.k8s.io/v1/namespaces/aiops/leases/aiops"


class Skewed(ManualClock):
    """A clock whose wall time is wrong by hours."""

    def __init__(self, now, wrong_s=0.0):
        super().__init__(now)
        self.wrong_s = wrong_s

    def now(self):
        return self._now + self.wrong_s


class Candidate(Lease):
    def __init__(self, store, name, now, wrong_s=0.0, **given):
        self.clock, self.api = Skewed(now, wrong_s), Connection(store)
        super().__init__(self.api, "aiops", "aiops", name, self.clock, **given)

    def at(self, when):
        """Look at that time."""
        self.clock.sleep_until(when)
        return self.step()


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def two(store):
    """One leads since 0 s; the other, whose clock is five hours ahead, follows since 1 s."""
    first, second = Candidate(store, "first", 0.0), Candidate(store, "second", 0.0, 18_000.0)
    first.at(0.0)
    second.at(1.0)
    return first, second


def test_the_first_one_leads_and_the_second_waits(two):
    """And says for whom."""
    first, second = two
    assert (first.term(), second.term()) == (0, None)
    assert second.waits().reason == "waits for the lease aiops/aiops: first leads"


def test_who_renews_leads_on_under_the_same_term(two):
    """However long, and whatever the other's clock says."""
    first, second = two
    for at in range(2, 200, 2):
        first.at(at)
        second.at(at + 1)
        assert (first.term(), second.term()) == (0, None)


def test_a_dead_leader_is_followed_when_nobody_saw_a_change_for_its_duration(two):
    """Counted from when the follower saw the last change, and looked at right then."""
    first, second = two
    first.at(2.0)
    second.at(3.0)
    assert second.at(16.0) == 2.0
    assert second.at(17.5) == 0.5
    assert second.term() is None
    second.at(18.0)
    assert second.term() == 1


def test_the_leader_stops_before_anybody_may_follow(two):
    """After ten seconds without a renewal it does not lead; a write begun until then ends before the fifteenth."""
    first, _ = two
    first.clock.sleep_until(9.9)
    assert first.term() == 0 and first.left_s() == pytest.approx(4.1)
    first.clock.sleep_until(10.0)
    assert (first.term(), first.left_s()) == (None, 0.0)


def test_a_machine_that_was_asleep_does_not_lead_by_its_stopped_clock(two):
    """Wall time went on, monotonic time did not."""
    first, _ = two
    first.clock.wrong_s = 3600.0
    assert (first.term(), first.left_s()) == (None, 0.0)


def test_a_renewal_counts_from_before_it_was_sent(two, store):
    """A slow answer does not make the lease longer."""
    first, _ = two
    put = first.api.put

    def slow(path, body):
        answer = put(path, body)
        first.clock.sleep_until(6.0)
        return answer
    first.api.put = slow
    first.at(2.0)
    assert first.left_s() == pytest.approx(10.0)


@pytest.mark.parametrize("error", [Retry("down"), Refused("403 Grant the right."), Ambiguous("no answer")])
def test_without_an_answer_it_is_not_renewed(two, error):
    """The time runs on from the last renewal, and the reason is told."""
    first, _ = two
    first.api.failing = error
    assert first.at(4.0) == 2.0
    assert first.problem == error.reason
    first.clock.sleep_until(10.0)
    assert first.term() is None
    assert error.reason in first.waits().reason


@pytest.mark.parametrize("found", [{}, {"spec": None}, {"spec": 3}, {"spec": {"leaseTransitions": "many"}}], ids=str)
def test_a_lease_that_cannot_be_understood_is_named_and_looked_at_again(two, found):
    """Whatever somebody wrote into it: the thread goes on."""
    first, second = two
    for one in (first, second):
        one.api.get = lambda path: found
        assert one.at(3.0) == 2.0
        assert one.problem == "the lease aiops/aiops cannot be understood. Delete it; it is made anew"


def test_who_comes_back_after_nobody_led_has_the_same_term(two):
    """Nobody else can have written in between."""
    first, second = two
    second.clock.sleep_until(30.0)
    first.at(30.0)
    assert first.term() == 0


def test_who_comes_back_after_another_led_finds_a_higher_one(two):
    """And looks only: it does not write."""
    first, second = two
    second.at(16.0)
    before = dict(first.api.sent)
    first.at(40.0)
    assert (first.term(), first.seen, second.seen) == (None, 1, 1)
    assert {k: v for k, v in first.api.sent.items() if k != "get"} == {k: v for k, v in before.items() if k != "get"}


def test_two_that_want_it_at_once(store):
    """The resource version decides; the one that lost finds out by looking."""
    first, second = Candidate(store, "first", 0.0), Candidate(store, "second", 0.0)
    get = second.api.get

    def late(path):
        second.api.get = get
        try:
            return get(path)
        finally:
            first.step()
    second.api.get = late
    second.step()
    assert (first.term(), second.term()) == (0, None)
    second.at(2.0)
    assert second.term() is None


def test_given_back_it_is_taken_at_once(two):
    """At an orderly stop nobody has to wait for the end of the lease."""
    first, second = two
    first.release()
    assert first.term() is None
    second.at(2.0)
    assert second.term() == 1


def test_a_lease_that_somebody_deleted_still_holds_for_as_long(two, store):
    """Its holder does not know yet. The new one begins with a later term."""
    _, second = two
    del store.objects[PATH]
    second.at(3.0)
    assert second.term() is None
    second.at(17.0)
    assert second.term() == 1


def test_a_lease_made_anew_begins_later_than_the_ledger_says(store):
    """Terms never come again."""
    first = Candidate(store, "first", 0.0, floor=lambda: 7)
    first.step()
    assert first.term() == 7


def test_the_record_is_that_of_kubernetes(two, store):
    """So that kubectl shows it as any other."""
    spec = store.objects[PATH]["spec"]
    assert spec == {"holderIdentity": "first", "leaseDurationSeconds": 15, "leaseTransitions": 0,
                    "acquireTime": "1970-01-01T00:00:00.000000Z", "renewTime": "1970-01-01T00:00:00.000000Z"}
