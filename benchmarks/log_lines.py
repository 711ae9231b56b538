"""How many log lines a second one core takes in: from files, and from OTLP requests, into the buffer of the tick.

CPU time, best of three. Files: 50,000 lines of each kind, read by the source as in the daemon. OTLP: requests of 5,000
records. Run with `make bench`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from aiops import intake
from aiops.meaning import shipped
from aiops.sources.logs import source as logfile
from aiops.sources.logs.source import LogFileSource
from aiops.sources.otlp import source as otlp
from aiops.sources.otlp.source import OtlpSource

LINES, RECORDS, NOW = 50_000, 5_000, 1_795_288_800.0
KINDS: dict[str, Callable[[int], str]] = {
    "without a time": lambda i: f"INFO com.shop.Api request {i} done in 12 ms for user 77",
    "ISO time": lambda i: f"2026-11-21 19:19:03,{i % 1000:03} INFO com.shop.Api request {i} done in 12 ms for user 77",
    "CRI": lambda i: f"2026-11-21T19:19:03.{i % 1000:03}Z stdout F INFO request {i} done in 12 ms for user 77",
    "Docker": lambda i: json.dumps({"log": f"INFO request {i} done in 12 ms\n", "stream": "stdout",
                                    "time": "2026-11-21T19:19:03.1Z"}),
    "JSON": lambda i: json.dumps({"level": "info", "time": "2026-11-21T19:19:03Z", "msg": "request done", "path": f"/x/{i}"}),
}


def main() -> None:
    intake.MAX_LINES = logfile.MAX_LINES = otlp.MAX_LINES = 10**9  # the bounds of a tick are not what is measured
    print(f"{'what':<36}{'lines/s':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for kind, line in KINDS.items():
            path = Path(folder) / "a.log"
            path.write_text("".join(line(i) + "\n" for i in range(LINES)), encoding="utf-8")
            for multiline in (False, True):
                name = f"file, {kind}{', multiline' if multiline else ''}"
                print(f"{name:<36}{best(partial(files, path, multiline)):>12,.0f}", flush=True)
    print(f"{'OTLP, JSON':<36}{best(pushed):>12,.0f}")


def best(measure: Callable[[], float]) -> float:
    return max(measure() for _ in range(3))


def files(path: Path, multiline: bool) -> float:
    source, into = LogFileSource([str(path)], from_start=True, multiline=multiline), intake.Intake(10.0)
    began, count = time.process_time(), 0
    for _ in range(LINES):
        source.poll(NOW, into)
        [batch] = into.drain(NOW, ())
        count += len(batch.lines)
        if count == LINES:
            break
    source.close()
    return count / (time.process_time() - began)


def pushed() -> float:
    records = [{"timeUnixNano": str(int(NOW * 1e9)), "severityNumber": 9, "body": {"stringValue": f"request {i} done in 12 ms"},
                "attributes": [{"key": "a", "value": {"stringValue": "b"}}]} for i in range(RECORDS)]
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).encode()
    source, into = OtlpSource("otlp", 10.0, lambda: NOW, shipped()), intake.Intake(10.0)
    source.poll(NOW, into)
    began = time.process_time()
    for _ in range(10):
        status, _, answer = source.receive("logs", {"content-type": "application/json"}, body)
        assert (status, answer) == (200, b"{}")
    return 10 * RECORDS / (time.process_time() - began)


if __name__ == "__main__":
    main()
