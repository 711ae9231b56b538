"""RemediationPolicies of a cluster: what is there, as texts, and what becomes of each, in its status.

Read by a reflector, in a thread of its own; the status is written beside it, at most once a minute for each object unless
whether it is in force has changed, and at most one write a second after one that failed.
https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#typical-status-properties
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from aiops.sources.kubernetes.api import Access, KubeApi, KubeError
from aiops.sources.kubernetes.kinds import Kind, Right
from aiops.sources.kubernetes.objects import Condition, Meta, Part
from aiops.sources.kubernetes.reflector import Backoff, Key
from aiops.sources.kubernetes.watch import Watching, refused

ROOT, PLURAL = "/apis/aiops.io/v1", "remediationpolicies"
EVERY_S, LOOK_S = 60.0, 0.5
MAX_MESSAGE = 8_000
MAX_POLICIES = 2_000


class _Status(Part):
    observed_generation: int = 0
    mode: str = ""
    last_decision: str = ""
    last_decision_time: str = ""
    last_action_time: str = ""
    conditions: list[Condition] | None = None


class _Policy(Part):
    metadata: Meta
    api_version: str = "aiops.io/v1"
    kind: str = "RemediationPolicy"
    spec: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    status: _Status = msgspec.field(default_factory=_Status)


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a policy is in force, and why not; with its short track record (times as RFC 3339, empty for none)."""

    generation: int
    ready: bool
    reason: str
    message: str = ""
    mode: str = ""
    last_decision: str = ""
    last_decision_time: str = ""
    last_action_time: str = ""

    @property
    def urgent(self) -> tuple[int, bool, str, str]:
        """What people wait for."""
        return self.generation, self.ready, self.reason, self.message


@dataclass(frozen=True, slots=True)
class Resource:
    """One RemediationPolicy: `text` holds what people wrote of it, and nothing that the server or a status writer changes."""

    key: Key
    uid: str
    created: str
    generation: int
    text: str
    told: Standing
    since: str = ""

    @property
    def age(self) -> tuple[str, Key]:
        """Sorts the older first."""
        return self.created, self.key


def _kept(p: _Policy) -> Resource:
    m = p.metadata
    head = msgspec.json.encode({"name": m.name, "namespace": m.namespace}).decode()
    text = (f'{{"apiVersion": "aiops.io/v1", "kind": "RemediationPolicy", "metadata": {head}, '
            f'"spec": {bytes(p.spec).decode("utf-8", "replace")}}}')
    s, ready = p.status, next((c for c in p.status.conditions or () if c.type == "Ready"), Condition())
    told = Standing(s.observed_generation, ready.status == "True", ready.reason or "", ready.message or "", s.mode,
                    s.last_decision, s.last_decision_time, s.last_action_time)
    return Resource(m.key, m.uid, m.creation_timestamp or "", m.generation, text, told, ready.last_transition_time or "")


POLICIES = Kind(PLURAL, ROOT, _Policy, _kept)
RIGHTS: frozenset[Right] = POLICIES.rights | {
    ("aiops.io", PLURAL, "get"), *(("aiops.io", f"{PLURAL}/status", verb) for verb in ("patch", "update"))}


@dataclass(slots=True)
class _Wish:
    """What the status of one object should be (and since when it is ready, or not), and how the writing of it goes.

    `written_at` and `not_before` are times of a monotonic clock.
    """

    uid: str
    want: Standing
    since: str
    written: Standing
    written_at: float = float("-inf")
    failures: int = 0
    not_before: float = float("-inf")

    def due(self, now: float) -> bool:
        if self.want == self.written or now < self.not_before:
            return False
        return self.want.urgent != self.written.urgent or now - self.written_at >= EVERY_S


@dataclass(slots=True)
class Statuses:
    """Which statuses are to be written now. Thread-safe; reads no clock."""

    backoff: Backoff = field(default_factory=Backoff)
    problem: str = ""
    _wishes: dict[Key, _Wish] = field(default_factory=dict)
    _quiet_until: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def want(self, standings: Mapping[Key, Standing], there: Mapping[Key, Resource], at: float) -> None:
        """What those that are there should say from `at` (UTC seconds) on; all others are forgotten."""
        with self._lock:
            self._wishes = {key: self._wish(standing, there[key], at) for key, standing in standings.items() if key in there}

    def _wish(self, standing: Standing, resource: Resource, at: float) -> _Wish:
        wish = self._wishes.get(resource.key)
        if wish is None or wish.uid != resource.uid:
            since = resource.since if resource.told.ready == standing.ready else ""
            return _Wish(resource.uid, standing, since or stamp(at), resource.told)
        wish.since = wish.since if wish.want.ready == standing.ready else stamp(at)
        wish.want = standing
        return wish

    def due(self, now: float) -> tuple[Key, Standing, str] | None:
        """The next that must be written, with the time since when it is ready, or not."""
        with self._lock:
            if now < self._quiet_until:
                return None
            for key, wish in sorted(self._wishes.items(), key=lambda item: item[1].written_at):
                if wish.due(now):
                    return key, wish.want, wish.since
            return None

    def done(self, key: Key, standing: Standing, now: float) -> None:
        with self._lock:
            self.problem = ""
            if wish := self._wishes.get(key):
                wish.written, wish.written_at, wish.failures = standing, now, 0

    def failed(self, key: Key, error: KubeError, now: float) -> None:
        """Try this one again later, and every other one not at once."""
        with self._lock:
            self.problem = "" if error.status == 404 else str(error)
            self._quiet_until = now + 1.0
            if wish := self._wishes.get(key):
                wish.failures += 1
                least = EVERY_S if error.status in (403, 404) else error.after_s
                wish.not_before = now + max(least, 1.0, self.backoff.wait(wish.failures))


class PolicyResources:
    """Follows the RemediationPolicies of one API server, in `namespaces` (none: all). `start` and `close` it."""

    def __init__(self, namespaces: Sequence[str] = (), access: Access | None = None) -> None:
        self.statuses = Statuses()
        self._watching = Watching(access or Access(), [POLICIES], namespaces, "policies", self._write)

    def look(self) -> list[Resource] | None:
        """All that are there, the oldest first; None while that is not known. Begins to follow them, and never waits.

        Raises KubeError where there is no way in, and RuntimeError where the following had broken down and begins anew.
        """
        self._watching.start(0.0)
        if not self._watching.synced:
            return None
        return sorted(self._watching.store(POLICIES).values(), key=lambda r: r.age)[:MAX_POLICIES]

    def wait(self, seconds: float) -> None:
        """Begin to follow them, and wait until they are known or it has failed, at most so long. Raises as `look`."""
        self._watching.start(seconds)

    def trouble(self) -> str:
        """What is wrong with the following or the writing, for people; empty where nothing is."""
        error = self._watching.trouble(POLICIES)
        if error is not None and refused(error):
            return f"{error} Until then no policies come from the cluster; deploy/policies/ holds the CRD and the role."
        count = len(self._watching.store(POLICIES))
        if not error and count > MAX_POLICIES:
            return f"{count} RemediationPolicies are more than {MAX_POLICIES}: the newest are left out."
        return str(error) if error else self.statuses.problem

    def tell(self, standings: Mapping[Key, Standing], at: float) -> None:
        """What the status of each should say from `at` (UTC seconds) on."""
        self.statuses.want(standings, self._watching.store(POLICIES), at)

    @property
    def fresh(self) -> threading.Event:
        """Set when something has come in, or failed."""
        return self._watching.fresh

    def close(self) -> None:
        self._watching.close()

    async def _write(self, api: KubeApi) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_S)
            while found := self.statuses.due(loop.time()):
                key, standing, since = found
                try:
                    await api.patch(path(key), body(standing, since), {"fieldManager": "aiops"})
                except KubeError as e:
                    self.statuses.failed(key, e, loop.time())
                else:
                    self.statuses.done(key, standing, loop.time())


def path(key: Key) -> str:
    namespace, name = key
    return f"{ROOT}/namespaces/{namespace}/{PLURAL}/{name}/status"


def body(standing: Standing, since: str) -> dict[str, Any]:
    """The merge patch of a status."""
    s = standing
    message = s.message if len(s.message) <= MAX_MESSAGE else s.message[:MAX_MESSAGE - 1] + "…"
    ready = {"type": "Ready", "status": "True" if s.ready else "False", "reason": s.reason, "message": message,
             "observedGeneration": s.generation, "lastTransitionTime": since}
    times = {"lastDecision": s.last_decision, "lastDecisionTime": s.last_decision_time, "lastActionTime": s.last_action_time}
    return {"status": {"observedGeneration": s.generation, "mode": s.mode, "conditions": [ready],
                       **{k: v for k, v in times.items() if v}}}


def stamp(at: float) -> str:
    """RFC 3339, to the second, as Kubernetes writes times."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
