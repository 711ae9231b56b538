"""What serving costs and how much of it idles, for each deployment: figures for people. They raise nothing.

Worked out of signals that are there anyway (`SIGNALS`), and of the topology: who owns the pods, and which GPUs they use. A
deployment is the workload or service that owns a pod; what is owned by nobody stands for itself. GPUs that nobody uses are
`unassigned`. A GPU that several deployments share counts in equal parts.

In event time only, so that a replay comes to the same figures. Each value stands for the time since the one before, at most
`LONGEST_S`. Memory: `MAX_DEPLOYMENTS` x 37 x 10 numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aiops.arrays import grown, renumbered
from aiops.meaning import parse_labels
from aiops.rows import columnar
from aiops.schema import Prices
from aiops.types import Entity, Floats, Frame, Signal
from correlators.graph import Graph

Window = Literal["hour", "day", "total"]
WINDOWS: tuple[Window, ...] = ("hour", "day", "total")
QUANTITIES = ("seen_s", "gpu_s", "idle_s", "gpu_cost", "idle_cost", "requests", "prompt_tokens", "generated_tokens",
              "spend", "token_cost")
_Q = {name: i for i, name in enumerate(QUANTITIES)}
SIGNALS = {"requests_finished_per_second": "requests", "prompt_tokens_per_second": "prompt_tokens",
           "generated_tokens_per_second": "generated_tokens", "spend_per_second": "spend"}
BUSY, MEMORY = "gpu_busy_percent", ("gpu_memory_used_ratio", "gpu_memory_used_mib")
IDLE_BELOW_PERCENT, HELD_RATIO, HELD_MIB = 5.0, 0.05, 1024.0
"""A GPU idles while it is less busy than this and more of its memory is held than this, or its memory is not known."""
LONGEST_S = 300.0
MAX_DEPLOYMENTS = 1000
UNASSIGNED, OTHERS = "unassigned", "others"
_OWNERS = ("deployment", "statefulset", "leaderworkerset", "daemonset", "job", "replicaset", "service")


@dataclass(frozen=True, slots=True)
class Figures:
    """One deployment in one window. Money in the currency of the prices, None where nothing says what it costs.

    `gpus` is their mean number while it was seen, `idle_ratio` 0..1 the share of GPU-hours that idled, None without GPUs;
    `tokens_per_gpu_second` counts generated tokens, `cost_per_1k_tokens` those read, too. The cost is that of the GPUs; where
    there are none, what a gateway says was spent; else tokens at their price.
    """

    deployment: Entity
    seen_hours: float
    gpus: float
    gpu_hours: float
    idle_gpu_hours: float
    idle_ratio: float | None
    requests: float
    prompt_tokens: float
    generated_tokens: float
    tokens_per_gpu_second: float | None
    cost: float | None
    idle_cost: float | None
    cost_per_hour: float | None
    cost_per_request: float | None
    cost_per_1k_tokens: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """The sums of all deployments at one moment: window -> float64[deployments, len(QUANTITIES)]. Never changed."""

    at: float
    deployments: tuple[Entity, ...]
    windows: Mapping[Window, Floats]
    prices: Prices

    def figures(self, window: Window) -> list[Figures]:
        """Those that were seen in the window, the most expensive first, then those with the most idle GPU-hours."""
        found = [_figures(d, row) for d, row in zip(self.deployments, self.windows[window].tolist(), strict=True)
                 if row[0] > 0]
        return sorted(found, key=lambda f: (-(f.cost or 0.0), -f.idle_gpu_hours, f.deployment))

    def json(self, window: Window) -> dict[str, Any]:
        """For the API: `currency` is empty where no prices are configured."""
        return {"at": self.at if np.isfinite(self.at) else None, "window": window, "currency": self.prices.currency_shown,
                "deployments": [asdict(f) for f in self.figures(window)]}


class Costs:
    """Adds up, step by step. `prices` may be replaced; what was added up before is not priced anew."""

    def __init__(self, prices: Prices | None = None) -> None:
        self.prices = prices or Prices()
        self._at = -np.inf
        self._size = 0
        self._watched: list[Signal] = []
        self._plan = _Plan()
        self._graph: Graph | None = None
        self._last = self._value = np.zeros(0)
        self._groups: dict[Entity, int] = {}
        self._seen = np.zeros(0)
        self._total = np.zeros((0, len(QUANTITIES)))
        self._hour, self._day = _Ring(300.0, 12), _Ring(3600.0, 24)

    def update(self, frame: Frame, graph: Graph) -> None:
        """Take in one step. One that is not later than the last is passed over: it was counted before a restart."""
        if not frame.at > self._at:
            return
        self._at = frame.at
        self._watch(frame.signals, graph)
        if not self._watched:
            return
        cols = self._plan.columns
        now = frame.values[cols]
        told = np.isfinite(now)
        span = np.where(told & np.isfinite(self._last), np.minimum(frame.at - self._last, LONGEST_S), 0.0)
        self._last, self._value = np.where(told, frame.at, self._last), np.where(told, now, self._value)
        amounts = self._plan.amounts(np.where(told, now, 0.0), self._value, span, len(self._groups))
        self._see(amounts, told)
        self._total = _sum(self._total, amounts)
        self._hour.add(frame.at, amounts)
        self._day.add(frame.at, amounts)

    @property
    def at(self) -> float:
        """Of the last step that was counted."""
        return self._at

    def sums(self) -> Sums:
        """What was added up so far; for readers in other threads, copied here between two steps."""
        size = len(self._groups)
        windows: dict[Window, Floats] = {"hour": self._hour.sum(size), "day": self._day.sum(size), "total": self._total.copy()}
        return Sums(self._at, tuple(self._groups), windows, self.prices)

    # ------------------------------------------------------------------------------------------------ over a restart
    def state(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"at": self._at if np.isfinite(self._at) else None, "quantities": list(QUANTITIES),
                "deployments": list(self._groups), "total": self._total.tolist(),
                "hour": self._hour.state(), "day": self._day.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from an earlier run. Raises ValueError, KeyError, TypeError for what is no state of this version."""
        names = [str(name) for name in state["deployments"]]
        total = np.array(state["total"], np.float64).reshape(-1, len(QUANTITIES))
        if list(state["quantities"]) != list(QUANTITIES) or len(total) != len(names):
            raise ValueError("sums of another version")
        hour, day = _Ring(300.0, 12, state["hour"]), _Ring(3600.0, 24, state["day"])
        self._at = -np.inf if state["at"] is None else float(state["at"])
        self._groups = {name: i for i, name in enumerate(names)}
        self._total, self._seen, self._hour, self._day = total, np.full(len(names), np.nan), hour, day

    def keep(self, columns: NDArray[np.int64]) -> None:
        """Of the frame's columns only these stay, in this order."""
        new = renumbered(columns, max(self._size, int(columns.max(initial=-1)) + 1))[[s.id for s in self._watched]]
        here = np.flatnonzero(new >= 0)
        self._watched = [replace(self._watched[k], id=int(new[k])) for k in here.tolist()]
        self._last, self._value = self._last[here], self._value[here]
        self._size, self._graph = int(np.count_nonzero(columns < self._size)), None

    # ------------------------------------------------------------------------------------------------- who is whose
    def _watch(self, signals: Sequence[Signal], graph: Graph) -> None:
        """New columns, and who they belong to, which may change with the topology."""
        some = columnar(signals[self._size:])
        wanted = some.by_kind(lambda s: s.name == BUSY or s.name in MEMORY or s.name in SIGNALS, np.bool_)
        more = [some[k] for k in np.flatnonzero(wanted).tolist()]
        self._size = len(signals)
        if not more and graph is self._graph:
            return
        self._watched += more
        self._graph = graph
        self._last, self._value = (grown(x, len(self._watched), np.nan)[:len(self._watched)] for x in (self._last, self._value))
        self._plan = _Plan.of(self._watched, graph, self.prices, self._group)
        self._total = _rows(self._total, len(self._groups))
        self._seen = grown(self._seen, len(self._groups), np.nan)[:len(self._groups)]

    def _group(self, name: Entity) -> int:
        if name not in self._groups and len(self._groups) >= MAX_DEPLOYMENTS:
            name = OTHERS
        return self._groups.setdefault(name, len(self._groups))

    def _see(self, amounts: Floats, told: Any) -> None:
        """A deployment is seen for the time since it last reported anything."""
        here = np.zeros(len(self._groups), np.bool_)
        here[self._plan.group[told[self._plan.source]]] = True
        since = np.where(np.isfinite(self._seen), np.minimum(self._at - self._seen, LONGEST_S), 0.0)
        amounts[here, _Q["seen_s"]] = since[here]
        self._seen[here] = self._at


def _none() -> Any:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """Which watched column adds what to which deployment, as index arrays.

    columns: of the frame. Entry j adds column `source[j]` (its place in `columns`) x `factor[j]` to quantity `quantity[j]` of
    deployment `group[j]`. For GPUs the source is the busy column, `memory` int64[2, j] the places of its memory figures
    (-1: none), `share` of the GPU, `price` a second; NaN where it has none.
    """

    columns: Any = field(default_factory=_none)
    source: Any = field(default_factory=_none)
    group: Any = field(default_factory=_none)
    quantity: Any = field(default_factory=_none)
    factor: Any = field(default_factory=_none)
    memory: Any = field(default_factory=lambda: np.zeros((2, 0), np.int64))
    price: Any = field(default_factory=_none)

    @classmethod
    def of(cls, watched: Sequence[Signal], graph: Graph, prices: Prices, group: Any) -> _Plan:
        """`group` gives the number of a deployment."""
        place = {(s.entity, s.name): i for i, s in enumerate(watched)}
        by_model = {(s.entity, s.name) for s in watched if "model=" in s.labels}
        flows, gpus = [], []
        for i, s in enumerate(watched):
            if s.name == BUSY:
                users = _users(s.entity, graph)
                price = prices.of_gpu(_called(s.entity, graph))
                memory = [place.get((s.entity, name), -1) for name in MEMORY]
                gpus += [(i, group(user), 1.0 / len(users), price, memory) for user in users]
            elif s.name in SIGNALS and ("model=" in s.labels or (s.entity, s.name) not in by_model):
                flows += [(i, group(_owner(s.entity, graph)), q, f) for q, f in _flows(s, prices)]
        rows = [*flows, *((i, g, -1, share) for i, g, share, _, _ in gpus)]
        source, groups, quantity, factor = (np.array([r[k] for r in rows]) for k in range(4))
        n = len(flows)
        return cls(np.array([s.id for s in watched], np.int64), source.astype(np.int64), groups.astype(np.int64),
                   quantity.astype(np.int64), factor.astype(np.float64),
                   np.array([[-1, -1]] * n + [m for *_, m in gpus], np.int64).reshape(-1, 2).T,
                   np.array([np.nan] * n + [np.nan if p is None else p / 3600.0 for *_, p, _ in gpus], np.float64))

    def amounts(self, now: Floats, value: Floats, span: Floats, groups: int) -> Floats:
        """float64[groups, QUANTITIES]: what this step adds. now: 0 where nothing was told, value: the last that was."""
        out = np.zeros((groups, len(QUANTITIES)))
        flow = self.quantity >= 0
        added = now[self.source] * span[self.source] * self.factor
        np.add.at(out, (self.group[flow], self.quantity[flow]), added[flow])
        gpu = ~flow
        source, group, (ratio, mib) = self.source[gpu], self.group[gpu], self.memory[:, gpu]
        held_ratio, held_mib = (np.where(k >= 0, value[k], np.nan) for k in (ratio, mib))
        held = (held_ratio > HELD_RATIO) | (held_mib > HELD_MIB) | (np.isnan(held_ratio) & np.isnan(held_mib))
        seconds = span[source] * self.factor[gpu]
        idle = np.where((now[source] < IDLE_BELOW_PERCENT) & held, seconds, 0.0)
        price = np.nan_to_num(self.price[gpu])
        for name, x in (("gpu_s", seconds), ("idle_s", idle), ("gpu_cost", seconds * price), ("idle_cost", idle * price)):
            np.add.at(out, (group, _Q[name]), x)
        return out


def _flows(s: Signal, prices: Prices) -> Iterable[tuple[int, float]]:
    """The quantities that a rate adds to, each with its factor: tokens also to what they cost."""
    quantity = SIGNALS[s.name]
    yield _Q[quantity], 1.0
    price = prices.of_tokens(parse_labels(s.labels).get("model", "")) if quantity.endswith("_tokens") else None
    if price is not None:
        yield _Q["token_cost"], price.input_each if quantity == "prompt_tokens" else price.output_each


def _owner(entity: Entity, graph: Graph) -> Entity:
    """Whose part it is: a workload before a service; of a service, whose its pods are; itself where nobody owns it."""
    def rank(e: Entity) -> tuple[int, Entity]:
        kind = e.split("/", 1)[0]
        return (_OWNERS.index(kind) if kind in _OWNERS else len(_OWNERS)), e
    owners = graph.owners(entity) or [o for pod in graph.owned(entity)[:1] for o in graph.owners(pod)]
    return min(owners, key=rank, default=entity)


def _users(gpu: Entity, graph: Graph) -> list[Entity]:
    """The deployments that use a GPU; the machine that it is in does not."""
    users = {_owner(e, graph) for e in graph.users(gpu) if not e.startswith("node/")}
    return sorted(users) or [UNASSIGNED]


def _called(gpu: Entity, graph: Graph) -> list[str]:
    """All that a price may be named after: what the topology says of the GPU and of its machine, and its name."""
    hosts = [e for e in graph.users(gpu) if e.startswith("node/")]
    return [*(v for e in (gpu, *hosts) for v in graph.labels(e).values()), gpu]


class _Ring:
    """Sums of the last `count` stretches of `width_s` seconds."""

    def __init__(self, width_s: float, count: int, state: Sequence[Any] = ()) -> None:
        self._width_s, self._count = width_s, count
        self._rows = {float(at): np.array(rows, np.float64).reshape(-1, len(QUANTITIES)) for at, rows in state}

    def add(self, at: float, amounts: Floats) -> None:
        start = at // self._width_s * self._width_s
        self._rows[start] = _sum(self._rows.get(start, amounts[:0]), amounts)
        for old in [k for k in self._rows if k <= start - self._count * self._width_s]:
            del self._rows[old]

    def sum(self, size: int) -> Floats:
        out = np.zeros((size, len(QUANTITIES)))
        for rows in self._rows.values():
            out[:len(rows)] += rows
        return out

    def state(self) -> list[Any]:
        return [[at, rows.tolist()] for at, rows in self._rows.items()]


def _rows(x: Floats, size: int) -> Floats:
    return np.concatenate([x, np.zeros((size - len(x), x.shape[1]))]) if size > len(x) else x


def _sum(x: Floats, more: Floats) -> Floats:
    return _rows(x, len(more)) + more


def _figures(deployment: Entity, row: Sequence[float]) -> Figures:
    q = dict(zip(QUANTITIES, row, strict=True))
    tokens = q["prompt_tokens"] + q["generated_tokens"]
    cost = _cost(q)
    return Figures(
        deployment, q["seen_s"] / 3600, q["gpu_s"] / q["seen_s"], q["gpu_s"] / 3600, q["idle_s"] / 3600,
        _over(q["idle_s"], q["gpu_s"]), q["requests"], q["prompt_tokens"], q["generated_tokens"],
        _over(q["generated_tokens"], q["gpu_s"]), cost, q["idle_cost"] if q["gpu_cost"] else None,
        _over(cost, q["seen_s"] / 3600), _over(cost, q["requests"]), _over(cost, tokens / 1000))


def _cost(q: Mapping[str, float]) -> float | None:
    return q["gpu_cost"] or q["spend"] or q["token_cost"] or None


def _over(part: float | None, whole: float) -> float | None:
    return part / whole if part is not None and whole > 0 else None
