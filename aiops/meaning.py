"""What known metrics mean: packs, read from `aiops/packs/*.yaml` or any other folder.

A pack says for each raw metric which entity it belongs to and whether it counts up, and defines the signals that are
watched: their unit, which direction is bad, and the smallest deviation worth anybody's attention. A metric that no pack
knows is watched as it is (its rate if it counts up), with cautious defaults.

A signal may be defined in several ways, by several packs or with `or`: engines that do the same count it under other names.
What it means (unit, direction, effect, resource, limit) is said once for all of them; whoever says it last is believed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from aiops import yamlfile
from aiops.quantities import Duration
from aiops.types import Direction, Entity, Kind
from aiops.yamlfile import Problems, Strict

SHIPPED = Path(__file__).parent / "packs"
_KINDS = ("value", "rate", "increase", "ratio", "mean", "total", "until")
_LABEL = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"\s*,?')


def _words(value: object) -> object:
    return [value] if isinstance(value, str) else value


class EntityRule(Strict):
    """Turns labels into `kind/namespace/name`. Applies when every label of `name` is present and not empty.

    `namespace` names a label that may be absent. `host` takes its place: the first of these labels that is there, one that
    matches `not_host` (a regular expression, from end to end) only for want of another; the rule needs one. None of them
    stays a label.
    """

    kind: str
    namespace: str | None = None
    host: Annotated[list[str], BeforeValidator(_words)] = []
    not_host: str | None = None
    name: list[str]
    drop: list[str] = []

    @model_validator(mode="after")
    def _regex(self) -> EntityRule:
        try:
            re.compile(self.not_host or "")
        except re.error as e:
            raise ValueError(f"not_host: not a regular expression: {e}") from None
        return self

    def within(self, labels: Mapping[str, str]) -> str | None:
        """What stands between kind and name; None where the rule does not apply."""
        if not all(labels.get(name) for name in self.name):
            return None
        if not self.host:
            return labels.get(self.namespace, "") if self.namespace else ""
        hosts = [labels[h] for h in self.host if labels.get(h)]
        good = [h for h in hosts if not (self.not_host and re.fullmatch(self.not_host, h))]
        return next(iter(good or hosts), None)

    @property
    def used(self) -> frozenset[str]:
        """The labels that are gone once the entity is made."""
        return frozenset({*self.name, *self.drop, *self.host, *([self.namespace] if self.namespace else [])})


class Selector(Strict):
    """Series of one metric; `where` keeps those whose labels match the regular expression from end to end."""

    metric: str
    where: dict[str, str] = {}

    @model_validator(mode="after")
    def _regexes(self) -> Selector:
        for label, pattern in self.where.items():
            try:
                re.compile(pattern)
            except re.error as e:
                raise ValueError(f"where.{label}: not a regular expression: {e}") from None
        return self

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(re.fullmatch(pattern, labels.get(label, "")) for label, pattern in self.where.items())


def _selector(value: object) -> object:
    return {"metric": value} if isinstance(value, str) else value


Selected = Annotated[Selector, BeforeValidator(_selector)]


class Effect(Strict):
    """The smallest deviation that matters: `abs` in the signal's unit, `rel` as share of the expected value; both count."""

    abs: float = Field(default=0.0, ge=0)
    rel: float = Field(default=0.0, ge=0)


class Limit(Strict):
    """A resource has run out when the signal is `at`, from its good side; somebody must know `horizon` before that."""

    at: float
    horizon_s: Duration = Field(default=86_400.0, alias="horizon", gt=0)


class Term(Strict):
    """What a signal means, whatever it is computed from. `was`: a name it had before, which still leads to it."""

    help: str = ""
    unit: str = ""
    direction: Direction = "both"
    min_effect: Effect = Effect()
    resource: Literal["", "cpu", "memory", "disk", "network", "gpu", "latency", "errors", "traffic", "saturation", "up",
                      "waiting"] = ""
    limit: Limit | None = None
    was: str = ""

    @model_validator(mode="after")
    def _one_side(self) -> Term:
        if self.limit and self.direction == "both":
            raise ValueError("a limit is reached from one side. Add direction: up or direction: down.")
        return self


class Formula(Strict):
    """How a signal comes from raw series. Exactly one of `value`, `rate`, `increase`, `ratio`, `mean`, `total`, `until`.

    value     the gauge itself, summed (or `combine: max|min|mean`) over series that share the kept labels
    rate      per second          increase  per tick, adds up over a window
    ratio     [part, whole]: rates for counters, values for gauges; `invert` gives 1 - ratio; `rest`: it is [part, rest]
    mean      [sum, count]: mean of what was observed in the tick, from a histogram or summary
    total     what a counter has counted in its life, for counters that are never reset
    until     seconds from now to the Unix time that a gauge holds

    `scale` turns the raw unit into that of the signal: 1e-6 for microseconds. `alone`: never added to the series of another
    definition, which may come beside it.
    """

    value: Selected | None = None
    rate: Selected | None = None
    increase: Selected | None = None
    ratio: tuple[Selected, Selected] | None = None
    mean: tuple[Selected, Selected] | None = None
    total: Selected | None = None
    until: Selected | None = None
    invert: bool = False
    rest: bool = False
    combine: Literal["sum", "max", "min", "mean"] = "sum"
    by: list[str] = []
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    alone: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> Formula:
        given = [k for k in _KINDS if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(_KINDS)} is needed, found {given or 'none'}.")
        if self.rest and self.ratio is None:
            raise ValueError("rest belongs to ratio. Remove it, or write ratio: [part, rest].")
        return self

    @property
    def parts(self) -> tuple[Selector, ...]:
        """The selectors of the numerator and, for ratio and mean, of the denominator."""
        one = self.value or self.rate or self.increase or self.total or self.until
        return self.ratio or self.mean or (one,)  # type: ignore[return-value]

    @property
    def metrics(self) -> frozenset[str]:
        """The raw metrics it is made of."""
        return frozenset(part.metric for part in self.parts)

    @property
    def form(self) -> tuple[object, ...]:
        """Two formulas of one form may be added up; those of different forms may not."""
        kind = next(k for k in _KINDS if getattr(self, k) is not None)
        return kind, self.invert, self.rest, self.combine, self.scale, self.metrics if self.alone else None


class SignalRule(Term, Formula):
    """A signal of a pack: what it means, unless that is said elsewhere, and how it is computed; `or` in other ways, too."""

    other: list[Formula] = Field(default=[], alias="or")

    @property
    def ways(self) -> tuple[SignalRule, ...]:
        """Itself, and itself computed in each other way."""
        return (self, *(self.model_copy(update={n: getattr(f, n) for n in Formula.model_fields}) for f in self.other))


class MetricRule(Strict):
    """One raw metric. `watch: false` when it only feeds signals."""

    kind: Kind = "gauge"
    help: str = ""
    entity: EntityRule | None = None
    ignore: bool = False


class Pack(Strict):
    """One file in `packs/`. `entity` lists rules, tried in order; the first whose labels are all present wins.

    `labels` gives labels a common name: `{model: [model_name]}`; the first that a series carries, unless it has that name
    already. `terms` say what signals mean that other packs define.
    """

    pack: str
    help: str = ""
    entity: list[EntityRule] = []
    labels: dict[str, list[str]] = {}
    metrics: dict[str, MetricRule] = {}
    terms: dict[str, Term] = {}
    signals: dict[str, SignalRule] = {}


@dataclass(frozen=True)
class Meanings:
    """All loaded packs, and the answers that the rest of the program asks of them."""

    packs: tuple[Pack, ...]

    @cached_property
    def _metric(self) -> dict[str, tuple[Pack, MetricRule]]:
        return {name: (pack, rule) for pack in self.packs for name, rule in pack.metrics.items()}

    @cached_property
    def terms(self) -> dict[str, dict[str, Any]]:
        """What each signal means, as far as it was said: whoever says it last."""
        out: dict[str, dict[str, Any]] = {}
        for pack in self.packs:
            for name, said in (*pack.terms.items(), *pack.signals.items()):
                about = said.model_fields_set & Term.model_fields.keys()
                out.setdefault(name, {}).update({n: getattr(said, n) for n in about})
        return out

    @cached_property
    def definitions(self) -> dict[str, tuple[SignalRule, ...]]:
        """Every way in which each signal is computed. One that shares a raw metric with an earlier pack's takes its place."""
        out: dict[str, tuple[SignalRule, ...]] = {}
        for pack in self.packs:
            for name, rule in pack.signals.items():
                meant = rule.model_copy(update=self.terms[name] | ({"help": rule.help} if rule.help else {}))
                used = frozenset[str]().union(*(way.metrics for way in meant.ways))
                kept = (d for d in out.get(name, ()) if not d.metrics & used)
                out[name] = (*kept, *meant.ways)
        return out

    @cached_property
    def signals(self) -> dict[str, SignalRule]:
        """Every defined signal by name. Where there are several definitions all mean the same; this is the first."""
        return {name: ways[0] for name, ways in self.definitions.items()}

    @cached_property
    def _uses(self) -> dict[str, tuple[tuple[str, SignalRule], ...]]:
        out: dict[str, list[tuple[str, SignalRule]]] = {}
        for name, ways in self.definitions.items():
            for way in ways:
                for metric in sorted(way.metrics):
                    out.setdefault(metric, []).append((name, way))
        return {metric: tuple(found) for metric, found in out.items()}

    def uses(self, metric: str) -> tuple[tuple[str, SignalRule], ...]:
        """The signals that a raw metric goes into, each with the definition that it belongs to."""
        return self._uses.get(metric, ())

    @cached_property
    def used_by(self) -> dict[str, tuple[str, ...]]:
        """Raw metric -> the signals that are computed from it."""
        return {metric: tuple(dict.fromkeys(name for name, _ in found)) for metric, found in self._uses.items()}

    def current(self, name: str) -> str:
        """What a signal is called today that once had this name."""
        return self._renamed.get(name, name)

    @cached_property
    def _renamed(self) -> dict[str, str]:
        return {said["was"]: name for name, said in self.terms.items() if said.get("was") and said["was"] not in self.terms}

    def knows(self, metric: str) -> bool:
        return metric in self._metric

    def ignored(self, metric: str) -> bool:
        """Known, and never worth watching."""
        known = self._metric.get(metric)
        return known[1].ignore if known else metric.endswith(("_info", "_created"))

    def metric_names(self, packs: Sequence[str] | None = None) -> list[str]:
        """Raw metrics of the named packs (all when None), for building selectors. Sorted."""
        return sorted(m for p in self.packs if packs is None or p.pack in packs for m, r in p.metrics.items() if not r.ignore)

    def kind(self, metric: str, told: Kind = "unknown") -> Kind:
        """Gauge or counter: what the pack says, else what the source was told, else the naming convention.

        https://prometheus.io/docs/practices/naming/
        """
        known = self._metric.get(metric)
        if known:
            return known[1].kind
        if told != "unknown":
            return told
        return "counter" if metric.endswith(("_total", "_bucket", "_count", "_sum")) else "gauge"

    def entity(self, metric: str, labels: Mapping[str, str]) -> tuple[Entity, dict[str, str]]:
        """The entity that a series belongs to, and the labels that remain to tell series of that entity apart."""
        for rule in self._rules(metric):
            within = rule.within(labels)
            if within is not None:
                name, used = "/".join(labels[n] for n in rule.name), rule.used
                return f"{rule.kind}/{within}/{name}", self._called(metric, {k: v for k, v in labels.items() if k not in used})
        return "unknown//" + metric, dict(labels)

    def _called(self, metric: str, labels: dict[str, str]) -> dict[str, str]:
        """The labels under the names that the metric's pack gives them."""
        known = self._metric.get(metric)
        for name, others in known[0].labels.items() if known else ():
            other = next((o for o in others if labels.get(o)), None)
            if other and not labels.get(name):
                labels[name] = labels.pop(other)
        return labels

    def _rules(self, metric: str) -> list[EntityRule]:
        known = self._metric.get(metric)
        if not known:
            return DEFAULT_ENTITY
        pack, rule = known
        return [*([rule.entity] if rule.entity else []), *pack.entity, *DEFAULT_ENTITY]


DEFAULT_ENTITY = [
    EntityRule(kind="pod", namespace="namespace", name=["pod"], drop=["job", "instance"]),
    EntityRule(kind="service", namespace="namespace", name=["service"], drop=["job"]),
    EntityRule(kind="instance", name=["instance"], drop=["job"]),
    EntityRule(kind="job", name=["job"]),
]


def load(folder: Path = SHIPPED, names: Sequence[str] | None = None) -> Meanings:
    """The packs of a folder, all or the named ones. Raises Problems naming file, line and remedy."""
    problems: list[yamlfile.Problem] = []
    packs: list[Pack] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            packs += [yamlfile.validate(d, Pack) for d in yamlfile.read(path)]
        except Problems as e:
            problems += e.problems
    if problems:
        raise Problems(problems)
    if names is None:
        return Meanings(tuple(packs))
    have = {p.pack for p in packs}
    missing = [n for n in names if n not in have]
    if missing:
        known = ", ".join(sorted(have))
        raise Problems([yamlfile.Problem(str(folder), 0, "", f"no pack {n!r}. Known: {known}.") for n in missing])
    return Meanings(tuple(p for p in packs if p.pack in names))


@lru_cache
def shipped() -> Meanings:
    """All packs that come with the program."""
    return load()


def parse_labels(text: str) -> dict[str, str]:
    """`k="v",…` -> dict. Raises ValueError with the place where it stops making sense."""
    out, at = {}, 0
    while at < len(text):
        m = _LABEL.match(text, at)
        if not m:
            raise ValueError(f"labels not understood from {text[at:at + 30]!r} on")
        out[m[1]] = re.sub(r"\\(.)", lambda e: "\n" if e[1] == "n" else e[1], m[2])
        at = m.end()
    return out


def format_labels(labels: Mapping[str, str]) -> str:
    """dict -> canonical `k="v",…`, sorted by name, escaped as Prometheus does."""
    def escape(v: str) -> str:
        return v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return ",".join(f'{k}="{escape(labels[k])}"' for k in sorted(labels))
