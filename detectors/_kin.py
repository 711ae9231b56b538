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

from aiops.arrays import renumbered
from aiops.rows import Distinct, Index, Signals, columnar, joined, lean
from aiops.types import Bools, Entity, Floats, Ints, Signal

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


def shown(signal: Signal) -> tuple[str, str]:
    """What is to be compared: the signal's name, and its labels without those that number the members."""
    labels = signal.labels
    if labels:
        labels = ",".join(f'{k}="{v}"' for k, v in _LABEL.findall(labels) if k not in MEMBER_LABELS)
    return signal.name, labels


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
        self._owners, self._shown = Distinct(), Distinct()
        self._index = Index()
        self._of = np.zeros(0, np.int32)  # of each column, its kin
        self._came: Places = np.zeros(0, np.int64)
        self._coming = 0
        self._starts: Places = np.zeros(0, np.int64)
        self._tables: list[tuple[Places, Places]] = []

    def extend(self, signals: Sequence[Signal]) -> bool:
        """Takes in the signals that are new; true when a group has grown or a new one appeared."""
        new = columnar(signals[self.seen:])
        self.seen = len(signals)
        mine = self._kin(new)
        self._of = np.append(self._of, mine)
        self._came = np.append(self._came, self._coming + np.arange(len(mine)))
        self._coming += len(mine)
        grown = bool((np.bincount(self._of)[mine] >= LEAST).any())
        if grown:
            self._sort()
        return grown

    def _kin(self, signals: Signals) -> Ints:
        """int32[n]: equal for signals that are to be compared: their owner, and what they show."""
        owners = signals.by_entity(lambda entity: self._owners.code(owner(entity)), np.int32)
        kinds = signals.by_kind(lambda kind: self._shown.code(shown(kind)), np.int32)
        found = self._index.find(owners, kinds)
        new = np.flatnonzero(found < 0)
        _, first, inverse = np.unique(joined(owners[new], kinds[new]), return_index=True, return_inverse=True)
        found[new] = self._index.count + inverse
        first = new[first]
        self._index.add(owners[first], kinds[first], found[first])
        return found.astype(np.int32)

    def move(self, columns: Places) -> None:
        """Only these columns stay, in this order. Members stay in the order in which they came."""
        columns = columns[columns < self.seen]
        of, self._came, self.seen = self._of[columns], self._came[columns], len(columns)
        left = np.flatnonzero(np.bincount(of, minlength=self._index.count))
        where = renumbered(left, self._index.count)
        self._of = where[of].astype(np.int32)
        self._index.keep(where)
        self._forget()
        self._sort()

    def _forget(self) -> None:
        """The names that nobody has any more, once they are most."""
        (owners, kinds), places = self._index.pairs(), self._index.places()
        self._owners, owners = lean(self._owners, owners)
        self._shown, kinds = lean(self._shown, kinds)
        self._index = Index()
        self._index.add(owners, kinds, places)

    def _sort(self) -> None:
        sizes = np.bincount(self._of, minlength=self._index.count)  # numpy.unique is much slower where few are alike
        columns = np.flatnonzero((sizes >= LEAST)[self._of])
        columns = columns[np.lexsort((self._came[columns], self._of[columns]))]
        sizes = sizes[sizes >= LEAST]
        firsts = np.cumsum(sizes) - sizes
        order = np.argsort(self._came[columns[firsts + LEAST - 1]])
        sizes, firsts = sizes[order], firsts[order]
        self.count = len(sizes)
        self.group = np.repeat(np.arange(self.count), sizes)
        self.columns = columns[np.repeat(firsts - (np.cumsum(sizes) - sizes), sizes) + np.arange(len(self.group))]
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
