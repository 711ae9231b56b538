"""Who is of one kind with whom, and medians over such groups in arrays.

Two columns are kin when they show the same thing (name and labels) of members of one owner: the pods of a workload, the GPUs
of a host, the nodes of a pool, the ranks of a job. The owner is read off the entity's name, so it is a convention and no
fact: pods of two Deployments called `api` and `api-7d4f9` would be taken for one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aiops.types import Bools, Entity, Floats, Signal

Places = NDArray[np.int64]
LEAST = 3
"""Of two that differ nobody can say which one is odd."""
MEMBER_LABELS = frozenset({"rank", "local_rank", "global_rank", "gpu", "replica", "instance", "pod", "worker"})
"""Labels that tell one member of a group from another, and not one quantity from another."""

_HASH = "(?:[bcdfghjklmnpqrstvwxz2456789]{5}|(?=[a-z]*[0-9])[bcdfghjklmnpqrstvwxz2456789]{3,10})"
"""Names that Kubernetes makes up: no vowels and no 0, 1, 3 (k8s.io/apimachinery/pkg/util/rand), cut short or not."""
_POD = re.compile(rf"-(?:[0-9]+|(?:[0-9]+-|{_HASH}-|[0-9]{{6,}}-)?{_HASH})\Z")
_NODE = (re.compile(r"[-.]?[0-9]+([-.])[0-9]+\1[0-9]+\1[0-9]+\Z"), re.compile(rf"-{_HASH}\Z"), re.compile(r"[-_.]?[0-9]+\Z"))
"""An IPv4 address, what an autoscaler made up, a number."""
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)",?')


def owner(entity: Entity) -> str:
    """What the members of a group have in common: `pod/shop/api-7d4f-x2x` and `pod/shop/api-0` belong to `pod/shop/api`.

    `gpu/HOST/INDEX` belongs to its host, nodes to what is left of their name without the number at its end (or domain and
    port), `instance//HOST:PORT` to the port. Everything else belongs to itself.
    """
    kind, _, rest = entity.partition("/")
    namespace, _, name = rest.partition("/")
    if kind == "gpu":
        name = ""
    elif kind == "instance":
        name = name.rpartition(":")[2]
    elif kind == "node":
        name = _pool(name)
    elif kind in ("pod", "persistentvolumeclaim"):
        name = _POD.sub("", name)
    return f"{kind}/{namespace}/{name}"


def _pool(node: str) -> str:
    """`gpu-3` -> `gpu`, `ip-10-0-1-7.internal` -> `ip`, `10.0.1.7:9100` -> empty, `prod-pool-8f2b-x7k2` -> `prod-pool-8f2b`."""
    host = node.partition(":")[0]
    if not host[:1].isdigit():
        host = host.partition(".")[0]
    return next((pattern.sub("", host) for pattern in _NODE if pattern.search(host)), host)


def kin(signal: Signal) -> tuple[str, str, str]:
    """Equal for signals that are to be compared: owner, name, and the labels without those that number the members."""
    labels = signal.labels
    if labels:
        labels = ",".join(f'{k}="{v}"' for k, v in _LABEL.findall(labels) if k not in MEMBER_LABELS)
    return owner(signal.entity), signal.name, labels


class Groups:
    """All groups of at least three columns. A place is a column that is in one; places are sorted by group, then column.

    columns int64[P]: the column of each place. group int64[P]: its group, 0..count-1. Groups are numbered by the column that
    made them three, so that the same signals give the same numbers, whether they came at once or one by one.
    """

    def __init__(self) -> None:
        self.seen = 0
        self.count = 0
        self.columns: Places = np.zeros(0, np.int64)
        self.group: Places = np.zeros(0, np.int64)
        self._number: dict[tuple[str, str, str], int] = {}
        self._kins: list[tuple[str, str, str]] = []
        self._free: list[int] = []
        self._of: Places = np.zeros(0, np.int64)
        self._came: Places = np.zeros(0, np.int64)
        self._coming = 0
        self._starts: Places = np.zeros(0, np.int64)
        self._tables: list[tuple[Places, Places]] = []

    def extend(self, signals: Sequence[Signal]) -> bool:
        """Takes in the signals that are new; true when a group has grown or a new one appeared."""
        new = np.array([self._kin(signal) for signal in signals[self.seen:]], np.int64)
        self._of = np.append(self._of, new)
        self._came = np.append(self._came, self._coming + np.arange(len(new)))
        self._coming += len(new)
        self.seen = len(signals)
        grown = bool((np.bincount(self._of)[new] >= LEAST).any())
        if grown:
            self._sort()
        return grown

    def _kin(self, signal: Signal) -> int:
        """The number of those it is kin to."""
        key = kin(signal)
        number = self._number.get(key)
        if number is None:
            number = self._number[key] = self._free.pop() if self._free else len(self._kins)
            self._kins[number:number + 1] = [key]
        return number

    def move(self, columns: Places) -> None:
        """Only these columns stay, in this order. Members stay in the order in which they came."""
        columns = columns[columns < self.seen]
        before = np.bincount(self._of, minlength=len(self._kins))
        self._of, self._came, self.seen = self._of[columns], self._came[columns], len(columns)
        after = np.bincount(self._of, minlength=len(self._kins))
        for number in np.flatnonzero((before > 0) & (after == 0)).tolist():
            del self._number[self._kins[number]]
            self._free.append(number)
        self._sort()

    def _sort(self) -> None:
        order = np.lexsort((self._came, self._of))
        sizes = np.bincount(self._of)  # numpy.unique is much slower where few are alike
        firsts = np.cumsum(sizes) - sizes
        large = np.flatnonzero(sizes >= LEAST)
        large = large[np.argsort(self._came[order[firsts[large] + LEAST - 1]])]
        sizes, firsts = sizes[large], firsts[large]
        self.count = len(sizes)
        self.group = np.repeat(np.arange(self.count), sizes)
        self.columns = order[np.repeat(firsts - (np.cumsum(sizes) - sizes), sizes) + np.arange(len(self.group))]
        self._starts = np.cumsum(sizes) - sizes
        widths = 2 ** np.ceil(np.log2(sizes)).astype(np.int64)
        self._tables = [self._table(np.flatnonzero(widths == width), int(width), sizes) for width in np.unique(widths)]

    def _table(self, groups: Places, width: int, sizes: Places) -> tuple[Places, Places]:
        """The places of groups of about one size, one row a group, filled up with a place behind the last."""
        row = np.arange(width)
        return groups, np.where(row < sizes[groups, None], self._starts[groups, None] + row, len(self.columns))

    def places_before(self, columns: Places) -> Places:
        """int64[P]: where in `columns` (an earlier layout, -1: gone) each place was, -1 where it is new."""
        place = np.full(max(self.seen, int(columns.max(initial=-1)) + 1), -1)
        there = np.flatnonzero(columns >= 0)
        place[columns[there]] = there
        return place[self.columns]

    def groups_before(self, before: Places, group: Places) -> Places:
        """int64[count]: which group each was in an earlier layout, where `group` was that of each place; -1 where it is new.

        before: as `places_before` gives it. The first member that was there decides.
        """
        out = np.full(self.count, -1)
        there = np.flatnonzero(before >= 0)[::-1]  # of equal indices the last counts
        out[self.group[there]] = group[before[there]]
        return out

    def sum(self, x: Floats | Bools) -> Floats:
        """float64[count]: sum over the members; of bool, how many."""
        return np.add.reduceat(x.astype(np.float64), self._starts)

    def median(self, x: Floats, upper: bool = False) -> Floats:
        """float64[count]: median over the members that are not NaN, NaN where there is none; of an even number the mean of
        the two in the middle, or the `upper` of them. Fewer than half may hold anything (breakdown point 1/2)."""
        out = np.full(self.count, np.nan)
        padded = np.append(x, np.nan)
        for groups, places in self._tables:
            rows = np.sort(padded[places], axis=1)  # NaN is last
            n = places.shape[1] - np.count_nonzero(np.isnan(rows), axis=1)
            each = np.arange(len(rows))
            high = rows[each, np.minimum(n // 2, places.shape[1] - 1)]
            out[groups] = high if upper else 0.5 * (rows[each, np.maximum(n - 1, 0) // 2] + high)
        return out


def carried(array: Floats, before: Places, fill: float) -> Floats:
    """What was known at each place of an earlier layout, at its present place; `fill` for those who are new."""
    out = np.full(len(before), fill)
    out[before >= 0] = array[before[before >= 0]]
    return out
