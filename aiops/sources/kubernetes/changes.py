"""What was changed in a cluster, from two looks at an object: rollouts, scaling, configuration, nodes, autoscalers.

Each is an Event of kind `change` at the time when the object says that the field was set, with who set it where managedFields
tell. An end that did not come (a rollout past its deadline) is a `warning`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from aiops.sources.kubernetes.kinds import MAX_TEXT, REVISION, By, Content, Deployed, Machine, Scaler
from aiops.sources.kubernetes.objects import Condition, controller, seconds
from aiops.sources.kubernetes.reflector import Change
from aiops.types import Entity, Event

RECENT_S = 3600.0
"""A rollout that began so long before the daemon is still told: the daemon may start because of it."""
_CONTROLLERS = ("kube-controller-manager", "horizontal-pod-autoscaler")


class Rollouts:
    """Rollouts and scaling of workloads, and how each rollout ends. Remembers those under way: one entry a workload.

    A template that differs in the same generation is the same one, written by a newer API server with more defaults.
    """

    def __init__(self) -> None:
        self._began: dict[Entity, float] = {}

    def of(self, entity: Entity, change: Change[Deployed], scaler: Scaler | None, now: float) -> Iterator[Event]:
        """What this change of a workload says. `scaler`: the autoscaler that may have set its replicas."""
        before, after = change.before, change.after
        if after is None or before is None or before.meta.uid != after.meta.uid:
            self._began.pop(entity, None)
            if after is not None and change.initial and not after.settled:
                self._began[entity] = at(after.template_by, now)
            return
        if before.template != after.template and before.meta.generation != after.meta.generation:
            began = self._began[entity] = at(after.template_by, now)
            yield _change(began, entity, "Rollout", _rollout(before, after))
        if before.replicas != after.replicas and None not in (before.replicas, after.replicas):
            yield _change(at(after.replicas_by, now), entity, "Scaled",
                          f"replicas {before.replicas} -> {after.replicas}{_scaled_by(after.replicas_by, scaler)}")
        if before.suspended != after.suspended:
            yield _change(now, entity, "Suspended" if after.suspended else "Resumed", "")
        yield from self._ended(entity, after, now)

    def _ended(self, entity: Entity, after: Deployed, now: float) -> Iterator[Event]:
        began = self._began.get(entity)
        if began is None:
            return
        progress = next((c for c in after.status.conditions or () if c.type == "Progressing"), Condition())
        when = min(seconds(progress.last_update_time or progress.last_transition_time, now), now)
        if after.settled:
            del self._began[entity]
            when = max(when, began) if progress.reason == "NewReplicaSetAvailable" else now
            yield _change(when, entity, "RolloutFinished", f"after {when - began:.0f} s: {', '.join(after.images)}")
        elif progress.status == "False":
            del self._began[entity]
            yield Event(when, entity, "warning", "RolloutFailed", (progress.message or progress.reason or "")[:MAX_TEXT])


def recent(sets: Iterable[Deployed], now: float) -> Iterator[Event]:
    """Rollouts of the last hour, from the age of ReplicaSets: what a daemon that just started would have missed."""
    for s in sets:
        owner = controller(s.meta)
        made = seconds(s.meta.creation_timestamp, 0.0)
        revision = (s.meta.annotations or {}).get(REVISION, "")
        if owner and owner[0] == "deployment" and revision not in ("", "1") and s.replicas and now - made <= RECENT_S:
            yield _change(min(made, now), f"deployment/{s.meta.namespace}/{owner[1]}", "Rollout",
                          f"revision {revision}; image {', '.join(s.images)}")


def of_content(kind: str, change: Change[Content], users: Mapping[tuple[str, str, str], Iterable[Entity]],
               now: float) -> Iterator[Event]:
    """A ConfigMap or Secret changed or went: a change of each workload that refers to it. `users`: by kind, namespace, name."""
    before, after = change.before, change.after
    if change.initial or before is None or (after is not None and after.version == before.version):
        return
    namespace, name = change.key
    title = {"configmap": "ConfigMap", "secret": "Secret"}[kind]
    what = "deleted" if after is None else f"changed{after.by.text}"
    for entity in users.get((kind, namespace, name), ()):
        yield _change(at(after.by, now) if after else now, entity, "ConfigChanged", f"{title} {name} {what}")


def of_machine(change: Change[Machine], now: float) -> Iterator[Event]:
    """Cordoned, uncordoned, tainted."""
    before, after = change.before, change.after
    if before is None or after is None or before.meta.uid != after.meta.uid:
        return
    entity = f"node//{after.meta.name}"
    if before.cordoned != after.cordoned:
        by = after.cordoned_by if after.cordoned else By()  # whoever takes a field away is not told
        yield _change(at(by, now), entity, "Cordoned" if after.cordoned else "Uncordoned",
                      f"{'no new pods' if after.cordoned else 'open for pods again'}{by.text}")
    for taint in sorted(set(after.taints) - set(before.taints)):
        yield _change(at(after.taints_by, now), entity, "Tainted", f"{taint}{after.taints_by.text}")
    for taint in sorted(set(before.taints) - set(after.taints)):
        yield _change(now, entity, "TaintRemoved", taint)


def of_scaler(change: Change[Scaler], now: float) -> Iterator[Event]:
    """Other bounds or another measure: a change of the workload that is scaled."""
    before, after = change.before, change.after
    if change.initial or (before is None and after is None):
        return
    here = after or before
    assert here is not None
    what = [] if before and after else ["created" if after else "deleted"]
    if before and after and before.meta.uid == after.meta.uid:
        what += [f"least {before.least} -> {after.least}"] if before.least != after.least else []
        what += [f"most {before.most} -> {after.most}"] if before.most != after.most else []
        what += ["other metrics"] if before.metrics != after.metrics else []
    if what:
        by = after.by if after else By()
        yield _change(at(by, now), here.target, "AutoscalerChanged", f"autoscaler {here.meta.name}: {', '.join(what)}{by.text}")


def at(by: By, now: float) -> float:
    """When it was set; `now` where nobody says, or a clock is ahead."""
    return by.at if by.at <= now else now


def _rollout(before: Deployed, after: Deployed) -> str:
    what = [f"revision {before.revision or '?'} -> {after.revision}"] if before.revision != after.revision else []
    if before.images != after.images:
        what.append(f"image {', '.join(before.images)} -> {', '.join(after.images)}")
    elif before.restarted != after.restarted:
        what.append("restarted")
    else:
        what.append("other pod template, same image")
    return "; ".join(what) + after.template_by.text


def _scaled_by(by: By, scaler: Scaler | None) -> str:
    if scaler and (not by.manager or by.manager in _CONTROLLERS):
        return f" by the autoscaler {scaler.meta.name}"
    return by.text


def _change(when: float, entity: Entity, reason: str, text: str) -> Event:
    return Event(when, entity, "change", reason, text[:MAX_TEXT])
