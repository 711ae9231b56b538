"""A page with realistic incidents: `python tests/browser/web_demo.py [calm|fresh]` serves it until interrupted. Not shipped."""

from __future__ import annotations

import io
import math
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import IO, Any

import numpy as np

from aiops import serial
from aiops.globs import named
from aiops.types import (
    Action,
    Alert,
    Cause,
    Counts,
    Impact,
    Incident,
    Outcome,
    Priority,
    Reason,
    Recurrence,
    Seen,
    TimelineEntry,
)
from aiops.web.view import Check, CostWindow, NotPossible

JSON = dict[str, Any]
NOW = 1_772_031_900.0
GPU, VLLM, GATE, NODE = "gpu/gpu-3/0", "deployment/serving/vllm-70b", "service/serving/gateway", "node//gpu-3"
MODELS: list[JSON] = [
    {"detector": "baseline", "serving": "baseline-v2-3f9c", "settings": {}, "since": NOW - 3600, "candidate": None,
     "previous": {"id": "baseline-v1-44ab", "at": NOW - 3600}, "refused": None},
    {"detector": "isolation_forest", "serving": "isolation_forest-v2-0c7e", "settings": {"trees": 32, "refit": "1d"},
     "since": NOW - 90_000, "previous": None, "refused": None,
     "candidate": {"id": "isolation_forest-v2-b1d2", "settings": {"trees": 64, "refit": "1d"}, "began": NOW - 7200,
                   "due": NOW + 79_200, "not_worse": False, "text": "2 h side by side; 9 anomalies on quiet time against 1"}}]

LONG = 'container_memory_working_set_bytes{container="the-container-of-the-api-server"}'
"""Wider than a telephone."""
PRIORITY = Priority("P1", 7.29, (Reason("its severity is critical", 3.0), Reason(
    "'chat is fast' spends its error budget 21 times too fast: 2.9 % of that of 30 d in the last 1 h", 3.0), Reason(
    "3 depend on it; their criticalities and its own add up to 5", 1.29)))
BEFORE = Recurrence(2, 4, (Seen("inc-1c3d", NOW - 3 * 86_400, 1500.0, (("Drain", "helped"),)),))
LEARNED: dict[str, list[JSON]] = {
    "records": [
        {"fault": "http_error_rate of service", "action": "Restart of deployment", "helped": 3, "no_help": 1, "worse": 0,
         "chance": 4 / 6, "lower": 0.34, "upper": 0.92, "earned": False, "standing": "3 of 5 successes towards act",
         "policies": ["failing-service"], "modes": ["earned"]},
        {"fault": "container_memory_usage_bytes of pod", "action": "Evict of pod", "helped": 9, "no_help": 0, "worse": 1,
         "chance": 10 / 12, "lower": 0.64, "upper": 0.97, "earned": False, "standing": "0 of 5 successes towards act",
         "policies": ["memory-leak"], "modes": ["ask"]}],
    "sensitivity": [{"class": "pod of deployment/shop/chat", "signal": "http_latency_seconds", "factor": 1.5625,
                     "false_alarms": 2, "useful": 0, "by": ["ann", "bob"], "until": NOW + 5_000_000}],
    "accepted": [{"entity": NODE, "signal": "node_load", "side": "above", "bound": 12.5, "incident": "inc-1", "by": "ann",
                  "until": NOW + 900_000}],
}


class DemoView:
    """What a daemon would answer, from memory. `said` keeps what was approved, rejected or judged."""

    def __init__(self, incidents: Sequence[JSON] = (), token: str | None = None, vitals: Sequence[JSON] = (),
                 counts: Counts | None = None, sources: Sequence[JSON] = ()) -> None:
        self.tokens: dict[str, str] = {}
        self.token, self._incidents, self._vitals = token, {i["id"]: i for i in incidents}, vitals
        self._counts, self._sources = counts or Counts(), sources
        self.said: list[tuple[str, ...]] = []
        self.changes = 0
        self._windows: list[JSON] = []

    def incidents(self, state: str | None = None, limit: int = 100, offset: int = 0) -> Sequence[JSON]:
        found = [{k: v for k, v in i.items() if k not in ("points", "feedback")} for i in self._incidents.values()]
        found = [i for i in found if state in (None, i["state"])]
        return sorted(found, key=lambda i: (i["state"] == "closed", -i["opened_at"]))[offset:offset + limit]

    def incident(self, name: str) -> JSON | None:
        return self._incidents.get(name)

    def status(self) -> JSON:
        return {"version": "0.1.0", "mode": "ask", "started_at": NOW - 93_000, "at": NOW, "counts": asdict(self._counts),
                "sources": list(self._sources), "notes": ["The topology comes from a file; calls are not watched."]}

    def vitals(self) -> Sequence[JSON]:
        return self._vitals

    def readiness(self, entity: str = "", state: str = "", limit: int = 100, offset: int = 0) -> JSON:
        rows = [{"entity": NODE, "signal": "node_load", "state": "warming_up", "reason": "warming up: 12 of 30 samples",
                 "samples": 12, "since": None}]
        found = [r for r in rows if state in ("", r["state"]) and entity in str(r["entity"])]
        return {"total": len(found), "counts": {"warming_up": 1, "ready": 0}, "signals": found[offset:offset + limit]}

    def topology(self, at: float | None = None, entity: str = "", limit: int = 100, offset: int = 0) -> JSON:
        rows = [{"from": "service/shop/web", "to": NODE, "kind": "runs_on", "sources": ["kubernetes"], "since": NOW - 60,
                 "until": None, "confirmed": NOW}]
        found = [r for r in rows if entity in str(r["from"]) or entity in str(r["to"])]
        return {"at": at or NOW, "version": 3, "exact_since": NOW - 600, "total": len(found), "left_out": 0,
                "edges": found[offset:offset + limit]}

    def maintenance(self) -> Sequence[JSON]:
        return self._windows

    def start_maintenance(self, entities: Sequence[str], for_s: float, since: float | None, reason: str, by: str) -> JSON:
        if for_s < 60:
            raise NotPossible("the window is over already.")
        form = {"id": "mnt-1", "entities": list(entities), "namespace": "*", "reason": reason, "by": by,
                "from": since or NOW, "until": (since or NOW) + for_s}
        self._windows.append({**form, "state": "active", "ends_at": form["until"]})
        self.said.append(("maintenance", *entities, by))
        return {**form, "matches": 1}

    def end_maintenance(self, name: str, by: str) -> None:
        if not any(w["id"] == name for w in self._windows):
            raise LookupError(name)
        self.said.append(("end", name, by))

    def models(self) -> JSON:
        return {"models": MODELS, "events": [{"at": NOW - 3600, "detector": "baseline", "kind": "takeover",
                                              "model": "baseline-v2-3f9c", "text": "baseline-v2-3f9c took over"}]}

    def promote(self, detector: str, by: str) -> None:
        self._turn("promote", detector, by, "candidate")

    def roll_back(self, detector: str, by: str) -> None:
        self._turn("rollback", detector, by, "previous")

    def _turn(self, verb: str, detector: str, by: str, needed: str) -> None:
        known = {m["detector"]: m for m in MODELS}[detector]
        if known[needed] is None:
            raise NotPossible(f"{detector} has no {needed}")
        self.said.append((verb, detector, by))

    def learned(self) -> JSON:
        kinds = [{"kind": kind, "what": f"what is in {kind}", "count": len(rows)} for kind, rows in LEARNED.items()]
        return {"at": NOW, "kinds": kinds}

    def learned_of(self, kind: str, names: Sequence[str], limit: int = 100) -> JSON:
        if kind not in LEARNED:
            raise LookupError(f"nothing of kind {kind!r} is learned.")
        found = [row for row in LEARNED[kind] if named(names, str(next(iter(row.values()))))]
        return {"kind": kind, "what": f"what is in {kind}", "total": len(found), "rows": found[:limit]}

    def learned_files(self) -> IO[bytes] | None:
        return io.BytesIO(b"an archive")

    def forget(self, kind: str, names: Sequence[str], by: str) -> int:
        found = self.learned_of(kind, names)["total"]
        if not found:
            raise NotPossible(f"no {kind} is named {names[0]!r}")
        self.said.append(("reset", kind, *names, by))
        return int(found)

    def costs(self, window: CostWindow) -> JSON:
        return {"at": NOW, "window": window, "currency": "", "deployments": []}

    def metrics_text(self) -> str:
        return "# TYPE aiops_incidents_open gauge\naiops_incidents_open 2.0\n"

    def ready(self) -> tuple[bool, Sequence[Check]]:
        bad = [s["name"] for s in self._sources if s["state"] == "failing"]
        return not bad, (Check("store", True), Check("sources", not bad, f"failing: {', '.join(bad)}" if bad else ""))

    def revision(self) -> int:
        return self.changes

    def approve(self, action: str, by: str, params: Mapping[str, object] | None = None) -> None:
        self._answer("approve", action, by)
        if params:
            self.said.append(("set", *(f"{k}={v!r}" for k, v in params.items())))

    def reject(self, action: str, by: str) -> None:
        self._answer("reject", action, by)

    def stop(self, by: str, reason: str, freeze: bool) -> None:
        self.said.append(("freeze" if freeze else "stop", by, reason))

    def start(self, by: str, reason: str) -> None:
        self.said.append(("start", by, reason))

    def feedback(self, incident: str, verdict: str, by: str) -> None:
        form = self._incidents[incident]
        form["feedback"] = [*form.get("feedback", []), {"verdict": verdict, "at": NOW, "by": by}]
        self.said.append((verdict, incident, by))
        self.changes += 1

    def _answer(self, verb: str, action: str, by: str) -> None:
        for form in self._incidents.values():
            for known in form["actions"]:
                if known["id"] == action:
                    if known["state"]:
                        raise NotPossible(f"{action} was {known['state']} before.")
                    known["state"] = {"approve": "approved", "reject": "rejected"}[verb]
                    self.said.append((verb, action, by))
                    self.changes += 1
                    return
        raise LookupError(action)


def wave(low: float, high: float, seed: int, n: int = 240, step: float = 15.0) -> np.ndarray[Any, Any]:
    """A calm daily-looking signal between low and high."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) * step
    base = 0.5 + 0.32 * np.sin(t / 900 + seed) + 0.08 * rng.normal(size=n)
    return low + (high - low) * np.clip(base, 0.0, 1.0)


def points(entity: str, signal: str, values: np.ndarray[Any, Any], middle: float, half: float, end: float = NOW) -> list[JSON]:
    """Points every 15 s up to `end`, with a band that breathes a little."""
    out = []
    for k, value in enumerate(values):
        at = end - (len(values) - 1 - k) * 15.0
        mid = middle * (1 + 0.04 * math.sin(at / 1200))
        out.append({"at": at, "entity": entity, "signal": signal, "value": None if math.isnan(value) else float(value),
                    "expected": mid, "lower": mid - half, "upper": mid + half})
    return out


def rising(values: np.ndarray[Any, Any], to: float, last: int) -> np.ndarray[Any, Any]:
    out = values.copy()
    out[-last:] = out[-last - 1] + (to - out[-last - 1]) * (1 - np.exp(-np.arange(last) / (last / 4)))
    return out + np.random.default_rng(1).normal(size=len(out)) * abs(to) * 0.012


def alert(entity: str, signal: str, ago: float, value: float, expected: float, half: float, unit: str, p: float,
          severity: str = "critical", **more: Any) -> Alert:
    return Alert(f"{entity}|{signal}", entity, signal, "firing", NOW - ago, NOW, 0.999, p, 30.0, ("baseline", "peers"),
                 severity, value, expected, expected - half, expected + half, unit, "up", **more)  # type: ignore[arg-type]


def throttling() -> JSON:
    """A GPU that throttles makes a model server slow, which makes requests fail at the gateway."""
    alerts = (
        alert(GPU, "gpu_temperature", 1500, 91.2, 67.0, 6.0, "celsius", 1e-14, resource="gpu"),
        alert(GPU, "gpu_clock_throttle_ratio", 1440, 0.46, 0.004, 0.006, "ratio", 1e-12),
        alert(VLLM, "time_to_first_token", 1290, 2.84, 0.34, 0.16, "seconds", 1e-10),
        alert(VLLM, "kv_cache_usage", 1200, 0.97, 0.61, 0.14, "ratio", 1e-6, "warning"),
        alert(GATE, "http_error_rate", 1080, 0.083, 0.004, 0.004, "ratio", 1e-8),
        Alert("log|x", NODE, "log template", "firing", NOW - 1470, NOW, 0.97, 1e-5, 9.0, ("logs",), "warning",
              text="never seen before: NVRM: Xid (PCI:<*>): 62, pid=<*>, GPU <*> thermal slowdown"),
    )
    causes = (
        Cause(GPU, 0.71, ("gpu_temperature", "gpu_clock_throttle_ratio"), (
            Reason("began first, 3 min before the next entity", 0.38), Reason("5 of 6 symptoms are on what depends on it", 0.29),
            Reason("XID 62 (thermal) in the kernel log of node gpu-3 at the onset", 0.22),
            Reason("peers gpu-3/1 to gpu-3/7 are 24 °C cooler", 0.12), Reason("no change was rolled out to it", -0.04))),
        Cause(VLLM, 0.19, ("time_to_first_token", "kv_cache_usage"), (
            Reason("rolled out 9 h ago", 0.05), Reason("began 3 min 30 s after another candidate", -0.18))),
        Cause(GATE, 0.07, ("http_error_rate",), (Reason("its errors follow those of vllm-70b", -0.3),)),
        Cause(NODE, 0.03, ("log template",), (Reason("carries the GPU that is wrong", 0.02),)),
    )
    actions = (
        Action("act-7f21-1", "Notify", "node//gpu-3", {"team": "hardware"}, "inc-7f21", "gpu-thermal", "act",
               "thermal XID and temperature above 88 °C for 5 min", NOW - 1020),
        Action("act-7f21-2", "Drain", "node//gpu-3", {"gracePeriod": "10m"}, "inc-7f21", "gpu-thermal", "ask",
               "the mode is ask; evidence is 40 s old; 7 of 8 GPU nodes stay in service", NOW - 960),
        Action("act-7f21-3", "ScaleUp", VLLM, {"replicas": "+1"}, "inc-7f21", "vllm-latency", "refused",
               "guard maxUnavailable: the suspected cause is not this deployment", NOW - 930),
    )
    outcomes = (Outcome("act-7f21-1", "done", NOW - 1015, "ticket opened"),)
    timeline = (TimelineEntry(NOW - 1500, "signal", "gpu_temperature of gpu/gpu-3/0 leaves what is normal"),
                TimelineEntry(NOW - 1080, "opened", "opened with 3 signals on 2 entities"),
                TimelineEntry(NOW - 1065, "changed", "probable cause is now gpu gpu-3/0 (was deployment serving/vllm-70b)"))
    impact = Impact((GATE, "service/serving/chat", "service/shop/assistant"), 4.5)
    made = serial.incident(Incident("inc-7f21", NOW - 1080, NOW, "open", "critical", (GPU, VLLM, GATE, NODE), alerts, causes,
                                    impact, None, actions, outcomes, timeline, priority=PRIORITY, before=BEFORE))
    made["points"] = [
        *points(GPU, "gpu_temperature", rising(wave(63, 70, 1), 91.2, 100), 67.0, 6.0),
        *points(GPU, "gpu_clock_throttle_ratio", np.clip(rising(wave(0, 0.008, 2), 0.46, 96), 0, 1), 0.004, 0.004),
        *points(VLLM, "time_to_first_token", rising(wave(0.25, 0.45, 3), 2.84, 86), 0.34, 0.16),
        *points(VLLM, "kv_cache_usage", rising(wave(0.5, 0.72, 4), 0.97, 80), 0.61, 0.14),
        *points(GATE, "http_error_rate", np.clip(rising(wave(0.001, 0.006, 5), 0.083, 72), 0, 1), 0.004, 0.004),
    ]
    return made


def leak() -> JSON:
    """A closed incident: memory grew, the pods were restarted, that helped."""
    api, end = "deployment/shop/api", NOW - 7200
    values = wave(2.0e9, 2.4e9, 7)
    values[60:170] = np.linspace(2.2e9, 7.9e9, 110)
    values[118:126] = np.nan
    alerts = (Alert("a", api, LONG, "resolved", end - 2700, end - 900, 0.99, 1e-11, 22.0, ("baseline",), "warning",
                    2.3e9, 2.2e9, 1.9e9, 2.6e9, "bytes", "up"),)
    action = Action("act-55aa-1", "Restart", api, {}, "inc-55aa", "memory-pressure-remediation", "act",
                    "memory_usage above its band for 25 min and OutOfMemoryError in the logs", end - 1110)
    outcomes = (Outcome("act-55aa-1", "done", end - 1095, "3 pods replaced one by one"),
                Outcome("act-55aa-1", "helped", end - 900, "memory_usage is back at 2.1 GiB"))
    cause = Cause(api, 0.88, (LONG,), (Reason("the only candidate with an onset before the symptoms", 0.52),
                                                 Reason("rolled out 48 min before the onset", 0.31)))
    timeline = (TimelineEntry(end - 2400, "opened", "opened with 1 signal"),
                TimelineEntry(end - 600, "closed", "all signals are normal again"))
    made = serial.incident(Incident("inc-55aa", end - 2400, end - 600, "closed", "warning", (api,), alerts, (cause,), Impact(),
                                    end - 600, (action,), outcomes, timeline))
    made["points"] = points(api, LONG, values, 2.2e9, 0.35e9, end)
    made["feedback"] = [{"verdict": "useful", "at": end, "by": "http"}]
    return made


def disk() -> JSON:
    """Young, one signal, no cause yet."""
    node = "node//cpu-11"
    alerts = (alert(node, "disk_full_in", 240, 11_700.0, 2.6e6, 1.2e6, "seconds", 1e-5, "warning"),)
    made = serial.incident(Incident("inc-90c3", NOW - 120, NOW, "open", "warning", (node,), alerts, (), Impact(), None, (), (),
                                    (TimelineEntry(NOW - 120, "opened", "opened with 1 signal"),)))
    made["points"] = points(node, "disk_full_in", np.full(1, 11_700.0), 2.6e6, 1.2e6)
    return made


def vitals() -> list[JSON]:
    rows = [("node//build-1", "node_cpu_busy_ratio", "ratio", 0.08, 0.34),
            ("node//build-1", "node_memory_used", "bytes", 6.1e9, 7.4e9),
            ("node//build-1", "disk_read", "bytes/s", 0, 9.2e6), ("node//build-1", "network_receive", "bytes/s", 1.4e5, 8.8e5),
            ("node//build-1", "node_load", "", 0.4, 1.9), ("gpu/build-1/0", "gpu_temperature", "celsius", 52, 67),
            ("gpu/build-1/0", "gpu_power", "watts", 180, 410), ("gpu/build-1/0", "gpu_memory_used", "bytes", 5.1e10, 6.0e10),
            ("service/shop/web", "http_error_rate", "ratio", 0.0005, 0.004),
            ("service/shop/web", "request_latency_p95", "seconds", 0.09, 0.21)]
    out = []
    for k, (entity, signal, unit, low, high) in enumerate(rows):
        values = wave(low, high, k + 20, 120)
        out.append({"entity": entity, "signal": signal, "unit": unit, "expected": (low + high) / 2, "lower": low, "upper": high,
                    "points": [[NOW - 15 * (119 - n), float(v)] for n, v in enumerate(values)], "ready": k != 4})
    out.append({"entity": "service/shop/web", "signal": "requests", "unit": "requests/s", "points": [], "expected": None,
                "lower": None, "upper": None, "ready": False})
    return out


def source(name: str, state: str = "ok", error: str = "", failures: int = 0) -> JSON:
    last = None if state == "starting" else NOW - (1900 if error else 4)
    return {"name": name, "state": state, "error": error, "failures": failures, "last_success": last}


def busy(token: str | None = None) -> DemoView:
    """Two open incidents, one closed, a failing source."""
    counts = Counts(24_800, 61_400_000, 1_204_330, 48_210, 312, 14, 9, 5, 4_180, 3_912, 3_846, {"late": 1204, "not a number": 88})
    failing = source("kubernetes", "failing", "connection refused (10.96.0.1:443)", 31)
    absent = "GPU 0: not supported by this GPU or driver: CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS"
    sources = [source("prometheus"), failing, {**source("remote_write"), "notes": [absent]}]
    return DemoView([throttling(), disk(), leak()], token, vitals(), counts, sources)


def calm() -> DemoView:
    """A healthy host."""
    return DemoView([leak()], None, vitals(), Counts(900, 190_800, 0, 41, 1, 1, 1, 1, 260, 212, 208), [source("host")])


def fresh() -> DemoView:
    """Seconds after the start."""
    return DemoView(sources=[source("host", "starting")])


if __name__ == "__main__":
    from aiops.web.app import create_app
    from aiops.web.server import Server

    made = {"calm": calm, "fresh": fresh}.get((sys.argv[1:] or [""])[0], busy)()
    server = Server(create_app(made), port=int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    server.start()
    print(server.url, flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.stop()
