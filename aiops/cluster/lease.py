"""Leader election over a Lease of the API server: of several replicas one carries actions out.

As client-go does it: a lease that somebody holds is taken over only when *we* saw no change of it for its whole duration, by
our own monotonic clock, so the clocks of two machines may differ as they like. The holder stops sooner than anybody may take
over: it leads for `renew_s` after its last renewal, and a write begun until then must be over before `duration_s`.
https://kubernetes.io/docs/concepts/architecture/leases/ and `leaderelection.go` of client-go
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiops.cluster.transport import JSON, Api, Conflict, Missing
from aiops.interfaces import Ambiguous, Clock, Refused, Retry

MARGIN_S = 1.0
"""So much sooner than the lease ends a write must be over."""
RELEASED_S = 1


class Terms(NamedTuple):
    """How long nobody else may take it, how long we count on it after a renewal, and how often we look. client-go's defaults."""

    duration_s: float = 15.0
    renew_s: float = 10.0
    retry_s: float = 2.0


TERMS = Terms()


class Waits(Retry):
    """We do not lead."""


class Deposed(Waits):
    """We led, and another replica has since."""


class Lease:
    """One candidate for one Lease. `step` is the work of its thread, and all that tests need. Thread-safe.

    holder: unique to this process. floor: the least number of transitions that a lease made anew may begin with.
    `problem`: why the last look failed; empty where it did not.
    """

    def __init__(self, api: Api, namespace: str, name: str, holder: str, clock: Clock, terms: Terms = TERMS,
                 floor: Callable[[], int] = lambda: 0) -> None:
        self._api, self._clock, self._terms, self._floor = api, clock, terms, floor
        self.namespace, self.name, self.holder, self.problem = namespace, name, holder, ""
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._spec: Mapping[str, Any] | None = None
        self._changed_at = 0.0
        self._renewed: tuple[float, float] | None = None
        self._thread: threading.Thread | None = None

    # --------------------------------------------------------------------------------------------- who leads
    @property
    def seen(self) -> int:
        """The transitions that the lease was last seen with; -1 where it was never seen."""
        with self._lock:
            return _transitions(self._spec) if self._spec is not None else -1

    @property
    def leader(self) -> str:
        """Who held it when we last looked; empty: nobody."""
        with self._lock:
            return str((self._spec or {}).get("holderIdentity") or "")

    def term(self) -> int | None:
        """The transitions under which we lead, None while we do not."""
        with self._lock:
            return _transitions(self._spec) if self._since_renewal_s() < self._terms.renew_s else None

    def left_s(self) -> float:
        """So long a write that is begun now may take. 0 where we do not lead."""
        with self._lock:
            since_s = self._since_renewal_s()
        return max(0.0, self._terms.duration_s - since_s - MARGIN_S) if since_s < self._terms.renew_s else 0.0

    def waits(self) -> Waits:
        """What to tell those who wait for it."""
        why = self.problem or (f"{self.leader} leads" if self.leader not in ("", self.holder) else "nobody leads yet")
        return Waits(f"waits for the lease {self.namespace}/{self.name}: {why}", 1.0)

    def _since_renewal_s(self) -> float:
        """By the clock that says more: a machine that was put to sleep may have stopped one of them."""
        if self._renewed is None:
            return float("inf")
        return max(self._clock.monotonic() - self._renewed[0], self._clock.now() - self._renewed[1])

    # ------------------------------------------------------------------------------------------------ the work
    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and give the lease back, so that another need not wait for its end. Nothing may be written any more."""
        self._stop.set()
        if self._thread:
            self._thread.join(self._terms.renew_s)
        self.release()

    def _run(self) -> None:
        while not self._stop.wait(self.step()):
            pass

    def step(self) -> float:
        """Look, and take or renew it where that is ours to do. Seconds until the next look."""
        try:
            self._look()
            self.problem = ""
        except (Retry, Refused, Ambiguous) as e:
            self.problem = e.reason
            return self._terms.retry_s
        except (KeyError, TypeError, ValueError, AttributeError):
            self.problem = f"the lease {self.namespace}/{self.name} cannot be understood. Delete it; it is made anew"
            return self._terms.retry_s
        if self.term() is not None:
            return self._terms.retry_s
        return min(self._terms.retry_s, max(0.05, self._ends_in_s()))

    def release(self) -> None:
        """Give it back, where we hold it. A failure is not told: it ends by itself."""
        with self._lock:
            held, self._renewed = self._renewed is not None, None
        try:
            found = self._api.get(self._path()) if held else {}
            if held and found.get("spec", {}).get("holderIdentity") == self.holder:
                spec = {**found["spec"], "holderIdentity": "", "leaseDurationSeconds": RELEASED_S, "renewTime": self._stamp()}
                self._api.put(self._path(), {**found, "spec": spec})
        except (Retry, Refused, Ambiguous):
            return

    def _look(self) -> None:
        try:
            found = self._api.get(self._path())
        except Missing:
            self._gone()
            return
        self._observe(found["spec"])
        holder = found["spec"].get("holderIdentity") or ""
        if holder == self.holder or not holder or self._ends_in_s() <= 0:
            self._take({**found, "spec": self._claim(found["spec"])}, self._api.put, self._path())
        else:
            self._lose()

    def _gone(self) -> None:
        """There is none. Where there was one, its holder may count on it as long as if it were still there."""
        if self._spec is not None and self.term() is None and self._ends_in_s() > 0:
            return
        self._lose()
        first = max(self.seen + 1, self._floor())
        meta = {"name": self.name, "namespace": self.namespace, "labels": {"app.kubernetes.io/name": "aiops"}}
        spec = self._claim({}) | {"leaseTransitions": first}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
        self._take(body, self._api.post, self._path("").rstrip("/"))

    def _take(self, body: JSON, write: Callable[[str, JSON], JSON], path: str) -> None:
        began = self._clock.monotonic(), self._clock.now()
        try:
            answer = write(path, body)
        except Conflict:
            return
        self._observe(answer["spec"])
        with self._lock:
            self._renewed = began

    def _lose(self) -> None:
        with self._lock:
            self._renewed = None

    def _claim(self, spec: Mapping[str, Any]) -> JSON:
        """The spec with us as holder: one more transition where it was not ours."""
        now, ours = self._stamp(), spec.get("holderIdentity") == self.holder
        return {**spec, "holderIdentity": self.holder, "leaseDurationSeconds": int(self._terms.duration_s), "renewTime": now,
                "acquireTime": spec.get("acquireTime", now) if ours else now,
                "leaseTransitions": _transitions(spec) + (not ours)}

    def _observe(self, spec: Mapping[str, Any]) -> None:
        with self._lock:
            if spec != self._spec:
                self._spec, self._changed_at = spec, self._clock.monotonic()

    def _ends_in_s(self) -> float:
        """Until it ends unless somebody renews it, counted from when we saw it change."""
        duration_s = float((self._spec or {}).get("leaseDurationSeconds") or self._terms.duration_s)
        return self._changed_at + duration_s - self._clock.monotonic()

    def _path(self, name: str | None = None) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{self.name if name is None else name}"

    def _stamp(self) -> str:
        return datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _transitions(spec: Mapping[str, Any] | None) -> int:
    return int((spec or {}).get("leaseTransitions") or 0)
