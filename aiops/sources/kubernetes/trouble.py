"""What went wrong, as events with the time at which it did: containers, jobs, nodes, and the cluster's own Events.

What lies further back than ten minutes at the first sight is history and not told.
"""

from __future__ import annotations

from collections.abc import Iterator

from aiops.sources.kubernetes.kinds import MAX_TEXT, Deployed, Machine
from aiops.sources.kubernetes.objects import Condition, ContainerStatus, KubeEvent, Pod, Terminated, entity, seconds
from aiops.sources.kubernetes.reflector import Change
from aiops.types import Entity, Event

HISTORY_S = 600.0
STARTING = frozenset({"ContainerCreating", "PodInitializing"})


def of_pod(change: Change[Pod], now: float) -> Iterator[Event]:
    """Containers that ended badly or cannot start, pods that were evicted."""
    after, before = change.after, change.before
    if after is None:
        return
    if before is not None and before.metadata.uid != after.metadata.uid:
        before = None
    who = f"pod/{after.metadata.namespace}/{after.metadata.name}"
    known = {c.name: c for c in before.containers} if before else {}
    for c in after.containers:
        yield from _of_container(who, c, known.get(c.name), change.initial, now)
    if after.status.reason and (before is None or before.status.reason != after.status.reason) and not change.initial:
        yield _warning(now, who, after.status.reason, after.status.message)


def _of_container(who: Entity, c: ContainerStatus, before: ContainerStatus | None, initial: bool, now: float) -> Iterator[Event]:
    ended = _ended(c)
    if ended and (ended.exit_code or ended.reason == "OOMKilled") and ended != (_ended(before) if before else None):
        when = min(seconds(ended.finished_at, now), now)
        if now - when <= HISTORY_S:
            yield _warning(when, who, ended.reason or "Error", f"container {c.name} ended with exit code {ended.exit_code}, "
                           f"restarted {c.restart_count} times")
    reason = c.state.waiting.reason if c.state.waiting else None
    had = before.state.waiting.reason if before and before.state.waiting else None
    if c.state.waiting and reason and reason != had and reason not in STARTING and not initial:
        yield _warning(now, who, reason, f"container {c.name}: {c.state.waiting.message or reason}")


def _ended(c: ContainerStatus) -> Terminated | None:
    return c.state.terminated or c.last_state.terminated


def of_job(who: Entity, change: Change[Deployed], now: float) -> Iterator[Event]:
    """A job that has failed for good."""
    after, before = change.after, change.before
    failed = _of(after.status.conditions, "Failed") if after else None
    had = _of(before.status.conditions, "Failed") if before else None
    if failed and failed.status == "True" and (had is None or had.status != "True"):
        when = min(seconds(failed.last_transition_time, now), now)
        if now - when <= HISTORY_S:
            yield _warning(when, who, failed.reason or "Failed", failed.message)


def of_machine(change: Change[Machine], now: float) -> Iterator[Event]:
    """Conditions that turned bad (`warning`) or good again (`normal`), with the time at which they did."""
    after, before = change.after, change.before
    if after is None:
        return
    known = {c.type: c.status for c in before.conditions} if before and before.meta.uid == after.meta.uid else {}
    for c in after.conditions:
        bad = _bad(c.type, c.status)
        was = _bad(c.type, known[c.type]) if c.type in known else False
        when = min(seconds(c.last_transition_time, now), now)
        if bad != was and now - when <= HISTORY_S:
            reason = f"{'Not' if bad else ''}Ready" if c.type == "Ready" else c.type if bad else f"No{c.type}"
            text = ": ".join(x for x in (c.reason, c.message) if x)[:MAX_TEXT]
            yield Event(when, f"node//{after.meta.name}", "warning" if bad else "normal", reason, text)


def of_event(change: Change[KubeEvent], now: float) -> Iterator[Event]:
    """An Event of the cluster that is new or happened again: the API counts one object up instead of writing another."""
    after, before = change.after, change.before
    if after is None or (before is not None and before.metadata.uid == after.metadata.uid
                         and (before.times, before.when) == (after.times, after.when)):
        return
    when = min(seconds(after.when, now), now)
    if now - when <= HISTORY_S:
        about = after.involved_object
        kind = about.kind.lower() or "unknown"
        often = f" ({after.times} times)" if after.times > 1 else ""
        yield _warning(when, entity(kind, about.namespace, about.name), after.reason or "", f"{after.message or ''}{often}")


def _bad(condition: str, status: str) -> bool:
    """Ready is good when True; every other condition of a node names a fault."""
    return status != "True" if condition == "Ready" else status == "True"


def _of(conditions: list[Condition] | None, name: str) -> Condition | None:
    return next((c for c in conditions or () if c.type == name), None)


def _warning(when: float, who: Entity, reason: str, text: str | None) -> Event:
    return Event(when, who, "warning", reason, (text or "")[:MAX_TEXT])
