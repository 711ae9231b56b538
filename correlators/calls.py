"""Who calls whom, read off the counters of service meshes and of traces: Istio, Linkerd, the OpenTelemetry service graph, spans.

Everything follows from the series of the batches, in event time, so that live and replay find the same edges. A counter that
stands still says nothing: an edge is there once calls were counted in two steps, and goes when none was for an hour.
Labels: https://istio.io/latest/docs/reference/config/metrics/, https://linkerd.io/2/reference/proxy-metrics/,
https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/connector/servicegraphconnector (and spanmetrics).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aiops.arrays import grown
from aiops.meaning import parse_labels
from aiops.types import Batch, Edge, Entity, Floats, Links, Series

ENTER_STEPS = 2
"""Calls in so many steps make an edge: a single one may have been anybody's."""
LEAVE_S = 3600.0
"""An edge without a call for so long is none any more; while one of its ends is in trouble it stays."""
REVIEW_S = 60.0
MAX_PAIRS = 100_000
WORKLOADS = ("deployment", "statefulset", "daemonset")
NOBODY = frozenset({"", "unknown", "-", "PassthroughCluster", "InboundPassthroughCluster", "InternalPassthroughCluster",
                    "BlackHoleCluster"})
"""What a mesh writes where it does not know: traffic that passes through, or is thrown away."""
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a call: under which names it may be known, the best first."""

    names: tuple[Entity, ...]


@dataclass
class Pair:
    """Two that may be calling: `told` by which metrics' family, in how many `series`, in how many `steps` so far."""

    caller: Party
    callee: Party
    told: str
    series: int = 0
    steps: int = 0
    live: bool = field(default=False)


Reader = Callable[[Labels, Entity], tuple[Party, Party] | None]


# ------------------------------------------------------------------------------------------------- what series say
def pair_of(series: Series) -> tuple[Party, Party, str] | None:
    """Caller, callee, and who says so; None where the series is about no call between two that are known."""
    family = FAMILIES.get(series.metric)
    if family is None:
        return None
    try:
        found = family[1](parse_labels(series.labels), series.entity)
    except ValueError:
        return None
    return (*found, family[0]) if found and not set(found[0].names) & set(found[1].names) else None


def _party(namespace: str, service: str, workload: str = "") -> Party | None:
    """By the name of a service, of a workload, or either."""
    within = "" if namespace in NOBODY else namespace
    names = [f"service/{within}/{service}"] if service not in NOBODY else []
    names += [f"{kind}/{within}/{workload}" for kind in WORKLOADS] if workload not in NOBODY else []
    if names and not names[0].startswith("service/"):
        names.insert(0, f"service/{within}/{workload}")
    return Party(tuple(names)) if names else None


def _both(caller: Party | None, callee: Party | None) -> tuple[Party, Party] | None:
    return (caller, callee) if caller and callee else None


def _service(entity: Entity) -> Party | None:
    """The entity of a series, where it is a service: its labels are gone then."""
    return Party((entity,)) if entity.startswith("service/") and entity.rpartition("/")[2] not in NOBODY else None


def _istio(labels: Labels, entity: Entity) -> tuple[Party, Party] | None:
    workload = labels.get("source_workload", "")
    canonical = labels.get("source_canonical_service", "")
    caller = _party(labels.get("source_workload_namespace", ""), workload if canonical in NOBODY else canonical, workload)
    callee = _party(labels.get("destination_service_namespace", ""), labels.get("destination_service_name", "")) or _service(
        entity) or _party(labels.get("destination_workload_namespace", ""), "", labels.get("destination_workload", ""))
    return _both(caller, callee)


def _linkerd(labels: Labels, entity: Entity) -> tuple[Party, Party] | None:
    """Of a proxy's own view only what goes out: who came in is not told."""
    if labels.get("direction", "outbound") != "outbound":
        return None
    kind, namespace, _ = entity.split("/", 2) if entity.count("/") >= 2 else ("", "", "")
    caller = _party(labels.get("namespace", namespace), "", labels.get("deployment", labels.get("statefulset", "")))
    to = labels.get("dst_namespace", labels.get("parent_namespace", ""))
    service = labels.get("dst_service") or (labels.get("parent_name", "") if labels.get("parent_kind") == "Service" else "")
    return _both(caller or (Party((entity,)) if kind == "pod" else None), _party(to, service, labels.get("dst_deployment", "")))


def _service_graph(labels: Labels, entity: Entity) -> tuple[Party, Party] | None:
    """Whoever calls from outside of what is traced is no service."""
    if labels.get("virtual_node") == "client" or labels.get("client") == "user":
        return None
    ends = [_party(next((v for n in ("k8s_namespace_name", "service_namespace") if (v := labels.get(f"{end}_{n}"))), ""),
                   labels.get(end, "")) for end in ("client", "server")]
    return _both(ends[0], ends[1] or _service(entity))


def _span_metrics(labels: Labels, entity: Entity) -> tuple[Party, Party] | None:
    """Spans of a caller, where the connector was told to keep `peer.service`."""
    if labels.get("span_kind", "").removeprefix("SPAN_KIND_") not in ("CLIENT", "PRODUCER"):
        return None
    namespace = labels.get("k8s_namespace_name", labels.get("service_namespace", ""))
    caller = _party(namespace, labels.get("service_name", "")) or _service(entity)
    return _both(caller, _party(labels.get("peer_namespace", ""), labels.get("peer_service", "")))


FAMILIES: dict[str, tuple[str, Reader]] = {
    **dict.fromkeys(("istio_requests_total", "istio_tcp_sent_bytes_total", "istio_tcp_connections_opened_total"),
                    ("istio", _istio)),
    **dict.fromkeys(("response_total", "request_total", "outbound_http_route_request_statuses_total",
                     "outbound_grpc_route_request_statuses_total"), ("linkerd", _linkerd)),
    "traces_service_graph_request_total": ("service_graph", _service_graph),
    **dict.fromkeys(("traces_span_metrics_calls_total", "traces_spanmetrics_calls_total", "calls_total"),
                    ("span_metrics", _span_metrics))}


def _namesake(party: Party, found: Entity) -> tuple[Edge, ...]:
    """What is told of a service without its namespace is about the one that was found: they belong together."""
    name = party.names[0]
    return (Edge(name, found, "owns"),) if name != found and name.startswith("service//") else ()


# --------------------------------------------------------------------------------------------------- what holds now
class Calls:
    """Follows the counters of calls. Bounded by MAX_PAIRS, and by the series that there are.

    `left_out`: how often a pair was refused for want of room.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._pairs: list[Pair | None] = []
        self._index: dict[tuple[Party, Party, str], int] = {}
        self._free: list[int] = []
        self._of = np.zeros(0, np.int32)
        self._last = np.zeros(0)
        self._seen = np.zeros(0)
        self._reviewed = -np.inf
        self._changed = False

    def __len__(self) -> int:
        return len(self._index)

    def observe(self, batch: Batch) -> bool:
        """Takes in a batch; whether `edges` should be asked: a pair began to call, or a minute has passed."""
        self._retire(batch.retired)
        for series in batch.new_series:
            if series.metric in FAMILIES:
                self._meet(series)
        self._count(batch)
        return self._changed or (bool(self._index) and batch.at - self._reviewed >= REVIEW_S)

    def edges(self, at: float, resolve: Callable[[Party], Entity], held: Collection[Entity] = ()) -> Links:
        """Who calls whom at this time. resolve: which of the names of a party is one; held: whose edges stay for now."""
        self._changed, self._reviewed = False, at
        told: dict[Edge, set[str]] = {}
        for k in sorted(self._index.values()):
            pair = self._pairs[k]
            assert pair is not None
            caller, callee = resolve(pair.caller), resolve(pair.callee)
            if pair.live and at - self._seen[k] > LEAVE_S and caller not in held and callee not in held:
                pair.live, pair.steps = False, 0
            if pair.live and caller != callee:
                for edge in (Edge(caller, callee, "calls"), *_namesake(pair.caller, caller), *_namesake(pair.callee, callee)):
                    told.setdefault(edge, set()).add(pair.told)
            elif not pair.live and not pair.series:
                self._forget(k, pair)
        return Links(edges=tuple(Edge(e.source, e.target, e.kind, ",".join(sorted(by))) for e, by in told.items()))

    def confirmed(self, resolve: Callable[[Party], Entity]) -> dict[Edge, float]:
        """When each edge that there is was last confirmed by a call."""
        out: dict[Edge, float] = {}
        for k in [*self._index.values()]:
            pair = self._pairs[k]
            if pair is not None and pair.live:
                edge = Edge(resolve(pair.caller), resolve(pair.callee), "calls")
                out[edge] = max(out.get(edge, -np.inf), float(self._seen[k]))
        return out

    # ---------------------------------------------------------------------------------------------------- one series
    def _meet(self, series: Series) -> None:
        self._room(series.id + 1)
        self._drop(series.id)
        found = pair_of(series)
        if found is not None and (k := self._place(found)) is not None:
            self._of[series.id] = k
            self._last[series.id] = np.nan
            pair = self._pairs[k]
            assert pair is not None
            pair.series += 1

    def _place(self, key: tuple[Party, Party, str]) -> int | None:
        """The number of a pair, a new one if need be; None where there is no room for it."""
        if key in self._index:
            return self._index[key]
        if len(self._index) >= MAX_PAIRS:
            self.left_out += 1
            return None
        k = self._free.pop() if self._free else len(self._pairs)
        if k == len(self._pairs):
            self._pairs.append(None)
            self._seen = grown(self._seen, k + 1, -np.inf)
        self._pairs[k], self._index[key], self._seen[k] = Pair(*key), k, -np.inf
        return k

    def _forget(self, k: int, pair: Pair) -> None:
        del self._index[pair.caller, pair.callee, pair.told]
        self._pairs[k] = None
        self._free.append(k)

    def _room(self, size: int) -> None:
        self._of, self._last = grown(self._of, size, -1), grown(self._last, size, np.nan)

    def _retire(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number < len(self._of):
                self._drop(number)

    def _drop(self, number: int) -> None:
        pair = self._pairs[self._of[number]] if self._of[number] >= 0 else None
        if pair is not None:
            pair.series -= 1
        self._of[number] = -1

    # ----------------------------------------------------------------------------------------------------- one batch
    def _count(self, batch: Batch) -> None:
        """A pair called where one of its counters is another than before. What is late counts at its own time."""
        known = (batch.series >= 0) & (batch.series < len(self._of))
        known[known] = self._of[batch.series[known]] >= 0
        known &= np.isfinite(batch.value) & np.isfinite(batch.time)
        if not known.any():
            return
        numbers, values, times = batch.series[known], batch.value[known], np.minimum(batch.time[known], batch.at)
        moved = (values != self._last[numbers]) & (values > 0)
        self._last[numbers] = values
        self._hear(self._of[numbers[moved]], times[moved])

    def _hear(self, pairs: Any, times: Floats) -> None:
        np.maximum.at(self._seen, pairs, times)
        for k in np.unique(pairs).tolist():
            pair = self._pairs[k]
            assert pair is not None
            if not pair.live:
                pair.steps += 1
                pair.live = pair.steps >= ENTER_STEPS
                self._changed |= pair.live

    # ---------------------------------------------------------------------------------------------------- a restart
    def state(self) -> list[list[Any]]:
        """Who calls whom: the names of both, by what, and the last time, as plain lists. The counters are not kept."""
        live = [(p, float(self._seen[k])) for k in sorted(self._index.values()) if (p := self._pairs[k]) and p.live]
        return [[list(p.caller.names), list(p.callee.names), p.told, seen] for p, seen in live]

    def restore(self, state: Iterable[Any]) -> None:
        """Into one that has seen nothing."""
        for caller, callee, told, seen in state:
            k = self._place((Party(tuple(caller)), Party(tuple(callee)), told))
            if k is not None:
                pair = self._pairs[k]
                assert pair is not None
                pair.live, pair.steps, self._seen[k], self._changed = True, ENTER_STEPS, seen, True
