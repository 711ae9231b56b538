"""The daemon's own metrics in a registry of its own; names after https://prometheus.io/docs/practices/naming/.

No entity, series or pod name is ever a label value: the number of time series does not grow with what is watched. But for
costs: a hundred deployments at most.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from aiops.types import Counts, Report

Reading = Callable[[], Mapping[str, int]]
_COUNTERS = {
    "batches": "Batches that the pipeline has seen.", "samples": "Samples that the pipeline has seen.",
    "log_lines": "Log lines that the pipeline has seen.", "raw_anomalies": "Single anomalous values, before they add up.",
    "alerts": "Deviations that lasted.", "incidents": "Incidents opened.",
    "prioritised": "Incidents that were P1 or P2 at some time, or for which a policy had an answer.",
    "actionable": "Incidents for which a policy had an answer: did, asked or rehearsed something.",
    "habitual": "Alerts of others that opened no incident: they come and go by habit.",
    "suppressed": "Alerts that raised nothing: under maintenance, or called a false alarm.",
}
_GAUGES = {"series": "Raw time series known.", "signals": "Signals watched.", "ready": "Signals past their warm-up."}
_COSTS = {
    "idle_ratio": ("aiops_gpu_idle_ratio", "Share of GPU-hours without work while memory was held."),
    "tokens_per_gpu_second": ("aiops_tokens_per_gpu_second", "Tokens generated a second and GPU."),
    "cost_per_hour": ("aiops_cost_per_hour", "Cost of an hour, in the currency of the prices."),
    "cost_per_request": ("aiops_cost_per_request", "Cost of a request, in the currency of the prices."),
    "cost_per_1k_tokens": ("aiops_cost_per_1k_tokens", "Cost of 1000 tokens read or written, in the currency of the prices."),
}
MOST_DEPLOYMENTS = 100
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """A Sink, and what `/metrics` shows. Thread-safe. Totals are taken over from the reports, never counted twice."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self._mutex = threading.Lock()
        self._counts = Counts()
        self._open: set[str] = set()
        self._decisions: dict[tuple[str, str], int] = {}
        self._outcomes: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        self._rejected: dict[tuple[str, str], int] = {}
        self._watched: list[tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str, str, Reading]] = []
        self.registry.register(_Totals(self))
        ProcessCollector(registry=self.registry)
        Info("aiops_build", "The running version.", registry=self.registry).info({"version": version})
        self._step = Histogram("aiops_step_seconds", "Wall time of one step of the pipeline.", registry=self.registry,
                               buckets=_BUCKETS)
        self._up = Gauge("aiops_source_up", "1 when the last poll of the source worked.", ["source"], registry=self.registry)
        self._readiness = Gauge("aiops_signals_readiness", "Signals by whether they are judged by now, and why not.", ["state"],
                                registry=self.registry)
        self._costs = {name: Gauge(metric, f"{what} In the last hour.", ["deployment"], registry=self.registry)
                       for name, (metric, what) in _COSTS.items()}
        self._at = Gauge("aiops_last_step_timestamp_seconds", "Event time of the newest batch.", registry=self.registry)

    def publish(self, report: Report) -> None:
        """Take over the totals of a report."""
        with self._mutex:
            self._counts = report.counts
            for incident in report.incidents:
                (self._open.add if incident.state == "open" else self._open.discard)(incident.id)
            for a in report.actions:
                self._decisions[a.type, a.decision] = self._decisions.get((a.type, a.decision), 0) + 1
            for o in report.outcomes:
                self._outcomes[o.status] = self._outcomes.get(o.status, 0) + 1
            for e in report.ends:
                if e.new:
                    self._ends[e.state] = self._ends.get(e.state, 0) + 1
        self._at.set(report.at)

    def step(self, seconds: float) -> None:
        """How long one step took."""
        self._step.observe(seconds)

    def source(self, name: str, up: bool, rejected: Mapping[str, int] | None = None) -> None:
        """Whether the last poll of a source worked, and what it could not use since its start, by reason."""
        self._up.labels(name).set(1 if up else 0)
        with self._mutex:
            self._rejected |= {(name, reason): n for reason, n in (rejected or {}).items()}

    def readiness(self, counts: Mapping[str, int]) -> None:
        """How many signals are in each state of readiness."""
        for state, count in counts.items():
            self._readiness.labels(state).set(count)

    def costs(self, deployments: Iterable[Mapping[str, Any]]) -> None:
        """What each deployment cost in the last hour, in the form of `aiops.costs.Figures`; the first hundred are shown."""
        for gauge in self._costs.values():
            gauge.clear()
        for d in itertools.islice(deployments, MOST_DEPLOYMENTS):
            for name, gauge in self._costs.items():
                if d[name] is not None:
                    gauge.labels(d["deployment"]).set(d[name])

    def watch(self, name: str, help_text: str, label: str, read: Reading, gauge: bool = False) -> None:
        """Counters (or gauges) that somebody else keeps: `read` gives value of the label -> number."""
        self._watched.append((GaugeMetricFamily if gauge else CounterMetricFamily, name, help_text, label, read))

    def text(self) -> str:
        """The text format of Prometheus, version 0.0.4."""
        return generate_latest(self.registry).decode()

    def close(self) -> None:
        """Nothing is held."""

    def families(self) -> Iterable[Metric]:
        """Everything that follows from the totals."""
        with self._mutex:
            counts, is_open = self._counts, len(self._open)
            decisions, outcomes = dict(self._decisions), dict(self._outcomes)
            rejected, ends = dict(self._rejected), dict(self._ends)
        for name, help_text in _COUNTERS.items():
            yield CounterMetricFamily(f"aiops_{name}", help_text, value=getattr(counts, name))
        for name, help_text in _GAUGES.items():
            yield GaugeMetricFamily(f"aiops_{name}", help_text, value=getattr(counts, name))
        yield GaugeMetricFamily("aiops_incidents_open", "Incidents that are open now.", value=is_open)
        yield _labelled("aiops_dropped_samples", "Input that could not be used.", ["reason"],
                        {(reason,): n for reason, n in counts.dropped.items()})
        yield _labelled("aiops_source_rejected", "What a source was given and could not use.", ["source", "reason"], rejected)
        yield _labelled("aiops_decisions", "What policies decided.", ["type", "decision"], decisions)
        yield _labelled("aiops_outcomes", "What became of actions.", ["status"], {(s,): n for s, n in outcomes.items()})
        yield _labelled("aiops_alert_end_states", "Alerts and anomalies that came into each state in which they end.", ["state"],
                        {(s,): n for s, n in ends.items()})
        for kind, name, help_text, label, read in self._watched:
            told = kind(name, help_text, labels=[label])
            for value, n in sorted(dict(read()).items()):
                told.add_metric([value], n)
            yield told


def _labelled(name: str, help_text: str, labels: list[str], values: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family


class _Totals(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics.families()
