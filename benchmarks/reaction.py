"""How fast does it react? A real daemon is pushed to, services fail one by one, and its writes are timed at the API server.

    KUBEBUILDER_ASSETS=... python benchmarks/reaction.py [--faults 220] [--series 1500] [--warm 600]

The whole daemon (remote-write over HTTP, its own tick, journal, audit record, store, Lease, intents, every check, dry run) in one
process, with an interval of a second: every series is pushed once a second, in bodies of 2,000. What is normal it learned before,
on a clock that is moved by hand; from then on it is the real one. Each second another service fails: every other one answers with
errors (a pod is restarted by eviction), the rest is slow (scaled up). It is well again once that is decided.

`to decision`: from the moment at which the body that completes the interval begins to be sent, until the decision is on record
(audit record, store); beside it, from the body with the sample of the service itself. `to write`: from the decision until the
request that changes something arrived at the API server, by the audit log of a real one, else by the clock of the double. One
worker acts, so the second action of a step waits for the first; that row has all of them. Other programs on the machine make all
of it longer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cramjam
import numpy as np

from aiops.clock import WallClock
from aiops.daemon import Daemon
from aiops.schema import Config
from aiops.types import Batch, Report
from benchmarks._apiserver import SPACE, ApiServer, api_server, workload
from benchmarks.soak import PER_BODY, Sender

EVERY_S, LONGEST_S, END_S = 1.0, 60.0, 20.0
OWN = (("http_requests_total", {"code": "200"}), ("http_requests_total", {"code": "500"}),
       ("http_request_duration_seconds_sum", {}), ("http_request_duration_seconds_count", {}))
POLICY = """
apiVersion: aiops.io/v1
kind: RemediationPolicy
metadata: {{name: {name}}}
spec:
  trigger: {{type: Anomaly, metric: {metric}}}
  diagnosis: {{correlations: [{{metric: {metric}}}]}}
  actions: [{{type: {action}, condition: "correlation.{metric} > {least}", target: {target}}}]
  mode: act
  guards: {{maxActions: {{count: 100000, per: 1h}}, maxUnavailable: 100000, namespaces: [shop]}}
"""
POLICIES = {
    "errors": POLICY.format(name="errors", metric="http_error_rate", action="Restart", least=0.1,
                            target='{pod: "selector:app=${cause.name}"}'),
    "slow": POLICY.format(name="slow", metric="http_latency_seconds", action="ScaleUp", least=0.2,
                          target='{deployment: "${cause.name}", replicas: "+1", max: 100}')}


class Clock(WallClock):
    """The real one; while it is `behind`, so many seconds before the start, and moved by hand."""

    def __init__(self, behind: float) -> None:
        self.behind, began = behind, time.time()
        super().__init__(lambda: began - self.behind if self.behind > 0.0 else time.time(), time.monotonic)


class Services:
    """What is sent: of each service its requests, its errors, and how long they took; and series that nobody asks for."""

    def __init__(self, count: int, series: int) -> None:
        from fakes.remote_write import series_v1

        self.count, self.failing = count, set[int]()
        self._dice, self._totals = np.random.default_rng(1), np.zeros((count, len(OWN)))
        labels = [{"__name__": m, "namespace": SPACE, "service": f"s{k}", **more} for k in range(count) for m, more in OWN]
        labels += [{"__name__": f"work_{k % 20}", "namespace": SPACE, "service": f"w{k // 20}"}
                   for k in range(series - len(labels))]
        self._labels, self._message = labels, series_v1

    def bodies(self, at: float) -> list[bytes]:
        """One sample of each series."""
        ok, bad = self._dice.poisson(200.0, self.count), self._dice.poisson(0.4, self.count)
        slow = self._dice.normal(0.05, 0.004, self.count).clip(0.01)
        for k in list(self.failing):
            if k % 2:
                slow[k] = 0.6
            else:
                ok[k], bad[k] = 120, 80
        self._totals += np.stack([ok, bad, slow * (ok + bad), ok + bad], axis=1)
        more = self._dice.normal(100.0, 5.0, len(self._labels) - self._totals.size)
        values = [*self._totals.ravel().tolist(), *more.tolist()]
        messages = [self._message(own, (v, at)) for own, v in zip(self._labels, values, strict=True)]
        return [bytes(cramjam.snappy.compress_raw(b"".join(messages[i:i + PER_BODY]))) for i in range(0, len(messages), PER_BODY)]


@dataclass
class Seen:
    """Sinks: `first` hears of a report before anybody else, `publish` once it is on record."""

    made: dict[float, float] = field(default_factory=dict)
    decided: dict[str, tuple[float, float, float, int]] = field(default_factory=dict)
    spent: dict[float, float] = field(default_factory=dict)
    came: dict[str, int] = field(default_factory=dict)

    def begin(self, batch: Batch) -> None:
        self._cpu = time.thread_time()

    def first(self, report: Report) -> None:
        self.made[report.at] = time.time()

    def publish(self, report: Report) -> None:
        self.spent[report.at] = time.thread_time() - self._cpu
        for outcome in report.outcomes:
            self.came[outcome.status] = self.came.get(outcome.status, 0) + 1
        for place, action in enumerate(a for a in report.actions if a.decision == "act"):
            name = action.target.rpartition("/")[2].removeprefix("selector:app=")
            self.decided.setdefault(name, (report.at, self.made[report.at], time.time(), place))

    def close(self) -> None:
        """Nothing is held open."""


class First(Seen):
    def __init__(self, seen: Seen) -> None:
        self.publish = seen.first  # type: ignore[method-assign]


class Run:
    """One daemon and what is sent to it."""

    def __init__(self, folder: Path, server: ApiServer, services: Services, warm: int) -> None:
        (folder / "policies").mkdir()
        for name, text in POLICIES.items():
            (folder / "policies" / f"{name}.yaml").write_text(text)
        lease: dict[str, Any] = {"enabled": True, "lease": "aiops/aiops"} if server.real else {"enabled": False}
        config = Config.model_validate({
            "mode": "act", "interval": "1s", "listen": "127.0.0.1:0", "store": str(folder / "store"), "leaderElection": lease,
            "policies": str(folder / "policies"), "sinks": [{"webhook": {"url": "http://127.0.0.1:9/"}}],
            "sources": [{"remote_write": {}}, {"kubernetes": {"kubeconfig": str(server.kubeconfig), "events": server.real}}]})
        self.services, self.seen, self.warm = services, Seen(), warm
        self.clock = Clock(float(warm))
        self.daemon = Daemon(config, self.clock)
        self.daemon._prepare()
        live = self.daemon.live
        live._sinks = [First(self.seen), *live._sinks, self.seen]  # type: ignore[list-item]
        write = live._journal

        def journal(batch: Batch) -> None:
            self.seen.begin(batch)
            write(batch)
        live._journal = journal
        self.sent: list[list[float]] = []

    def learn(self) -> None:
        """What is normal, on a clock that is moved by hand."""
        live = self.daemon.live
        [pushed] = [source for source in live.sources if source.name == "remote_write"]
        for left in range(self.warm, 0, -1):
            self.clock.behind = float(left)
            pushed.poll(live.intake)
            assert self.daemon.remote_write
            for body in self.services.bodies(self.clock.now()):
                assert self.daemon.remote_write.write(body, 1).status == 204
            live.tick()
        self.clock.behind = 0.0

    def fail(self, faults: int) -> dict[int, float]:
        """Sends once a second, and lets another service fail each second; when each one began, Unix seconds."""
        self.daemon._start()
        sender, began = Sender(int(self.daemon.server.url.rstrip("/").rpartition(":")[2])), dict[int, float]()
        start = time.time()
        for k in range(faults + int(END_S + 10)):
            time.sleep(max(0.0, start + k * EVERY_S - time.time()))
            now = time.time()
            if 10 <= k < faults + 10:
                began[k - 10] = now
            self.services.failing = {s for s, at in began.items() if f"s{s}" not in self.seen.decided and now - at < LONGEST_S}
            times = []
            for body in self.services.bodies(now):
                times.append(time.time())
                sender.push(body)
            self.sent.append(times)
        return began

    def figures(self, began: dict[int, float], written: dict[str, float]) -> dict[str, list[float]]:
        """Seconds, one a fault that was decided on."""
        out: dict[str, list[float]] = {name: [] for name in NAMES}
        for k, at in began.items():
            if f"s{k}" in self.seen.decided:
                stepped, made, recorded, place = self.seen.decided[f"s{k}"]
                push = max((times for times in self.sent if times[-1] <= stepped), key=lambda times: times[0])
                out["own"].append(recorded - push[k * len(OWN) // PER_BODY])
                out["last"].append(recorded - push[-1])
                out["cpu"].append(self.seen.spent[stepped])
                out["record"].append(recorded - made)
                out["fault"].append(recorded - at)
                wrote = [written[f"s{k}"] - made] if f"s{k}" in written else []
                out["write"] += wrote
                out["first"] += wrote if place == 0 else []
        return out


NAMES = {"last": "sample that completes the interval, to decision on record",
         "own": "sample of the service that failed, to the same",
         "cpu": "of that: CPU time, from the journal to the record",
         "record": "of that: writing it down", "write": "decision to request at the API server",
         "first": "the same, of the first action of each step", "fault": "fault to decision"}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--faults", type=int, default=220)
    parser.add_argument("--series", type=int, default=1500)
    parser.add_argument("--warm", type=int, default=600)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "kube").mkdir()
        things = [one for k in range(given.faults) for one in workload(f"s{k}")]
        with api_server(folder / "kube", things) as server:
            run = Run(folder, server, Services(given.faults, given.series), given.warm)
            run.learn()
            try:
                began = run.fail(given.faults)
            finally:
                run.daemon._end()
            figures, steps = run.figures(began, server.written()), len(run.seen.made)
    sys.stdout.write(f"{len(began)} faults, {given.series} series, an interval of 1 s, {steps} steps; {server.what}\n"
                     f"decided: {len(figures['own'])}; written: {len(figures['write'])}; outcomes: {run.seen.came}\n"
                     f"{'':<62}{'p50':>9}{'p99':>9}{'max':>9}\n")
    for key, name in NAMES.items():
        p50, p99, most = np.percentile(figures[key] or [np.nan], [50, 99, 100]) * 1000
        sys.stdout.write(f"{name:<62}{p50:>6.0f} ms{p99:>6.0f} ms{most:>6.0f} ms\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
