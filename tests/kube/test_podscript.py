"""What a simulated pod does next, without a cluster."""

from __future__ import annotations

import pytest
from kube.kubelet import heartbeat_every_s
from kube.podscript import PREFIX, Json, Run, following, moved, quantity, script_of, status_of


def pod(limit: str | None = None, restart: str = "Always", **notes: str) -> Json:
    resources = {"limits": {"memory": limit}} if limit else {}
    return {"metadata": {"annotations": {PREFIX + k.replace("_", "-"): v for k, v in notes.items()}}, "status": {},
            "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": "c:1", "resources": resources}]}}


def life(item: Json, until_s: float) -> list[tuple[float, str]]:
    """When it comes into which state, from second 0 on."""
    script, run, seen = script_of(item), Run(), []
    while (after := following(script, run)) is not None and after[0] <= until_s:
        run = moved(script, run, after[1], after[0])
        seen.append((round(run.since, 3), run.state))
    return seen


def test_a_good_pod_runs_and_gets_ready() -> None:
    """After 0.3 s, or when its script says so, or never."""
    assert life(pod(), 99) == [(0, "running"), (0.3, "ready")]
    assert life(pod(ready_after="5"), 99) == [(0, "running"), (5, "ready")]
    assert life(pod(ready_after="never"), 99) == [(0, "running")]


def test_a_crash_loop_backs_off_longer_and_longer() -> None:
    """The first restart is at once, then after 1, 2, 4, 8, 8 seconds."""
    starts = [at for at, state in life(pod(exits_after="1", ready_after="never"), 40) if state == "running"]
    assert starts == [0, 1, 3, 6, 11, 20, 29, 38]


def test_too_little_memory_kills_and_enough_does_not() -> None:
    """The limit counts when the container starts; no limit is enough."""
    assert (1, "backoff") in life(pod("500Mi", needs_memory="0.5Gi"), 1.5)
    assert life(pod("512Mi", needs_memory="0.5Gi"), 99) == life(pod(needs_memory="0.5Gi"), 99) == life(pod(), 99)


@pytest.mark.parametrize(("restart", "code", "ends"), [
    ("Never", "1", "done"), ("OnFailure", "0", "done"), ("OnFailure", "1", "backoff"), ("Always", "0", "backoff")])
def test_who_ends_for_good_is_said_by_the_restart_policy(restart: str, code: str, ends: str) -> None:
    """As in Kubernetes."""
    assert (2, ends) in life(pod(restart=restart, exits_after="2", exit_code=code), 2)


def test_a_script_that_changes_takes_effect_at_once() -> None:
    """A pod that could not pull its image runs; one that was ready hangs, without a restart."""
    assert following(script_of(pod()), Run("pulling", 3.0)) == (3.0, "running")
    ready, hung = Run("ready", 3.0, started_at=1.0), script_of(pod(ready_after="never"))
    assert following(hung, ready) == (3.0, "running")
    assert moved(hung, ready, "running", 5.0) == Run("running", 5.0, started_at=1.0, flipped_at=5.0)


def test_the_status_says_why_the_last_container_ended() -> None:
    """Waiting in CrashLoopBackOff, killed for memory before, and one restart once it runs again."""
    item = pod("1Mi", needs_memory="2Mi")
    run = Run("backoff", 2.0, started_at=1.0, ended_at=2.0, reason="OOMKilled", code=137)
    first = status_of(item, run, "10.0.0.1", "10.0.0.2")["containerStatuses"][0]
    assert (first["state"]["waiting"]["reason"], first["lastState"]["terminated"]["exitCode"]) == ("CrashLoopBackOff", 137)
    assert moved(script_of(item), run, "running", 3.0).restarts == 1


def test_quantities_are_those_of_kubernetes() -> None:
    """Binary and decimal powers, thousandths; anything else is an error."""
    assert [quantity(text) for text in ("1Gi", "1G", "250m", "7")] == [2**30, 1e9, 0.25, 7]
    with pytest.raises(ValueError, match="'1 Gb' is not a quantity"):
        quantity("1 Gb")


def test_heartbeats_come_less_often_before_they_are_too_many() -> None:
    """Six nodes at two seconds; two thousand nodes at half of what all requests together may be."""
    assert heartbeat_every_s(6, 2.0, 100.0) == 2.0
    assert heartbeat_every_s(2000, 2.0, 100.0) == 40.0
