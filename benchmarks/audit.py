"""What it costs to name the state of everything odd and to keep the audit record. Run with `make bench`.

CPU time of this process, so that others on the machine count less.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiops import build, chain, meaning
from aiops.endstates import EndStates
from aiops.sinks.audit import Audit
from aiops.types import Alert, Cause, Incident, Report
from benchmarks.pipeline import telemetry

T0 = 1_700_000_000.0


def share(series: int, ticks: int, folder: Path) -> float:
    """Of the time in a step: states and record."""
    spent, whole = [0.0], 0.0
    pipeline, audit = build.pipeline(meaning.shipped(), (), "observe"), Audit(folder)
    update, publish = timed(pipeline.ends.update, spent), timed(audit.publish, spent)
    pipeline.ends.update = update  # type: ignore[method-assign]
    for batch in telemetry(series, ticks, 15.0):
        began = time.process_time()
        publish(pipeline.step(batch))
        whole += time.process_time() - began
    audit.close()
    return spent[0] / whole


def timed(call: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """The same function; `spent[0]` grows by the seconds in it."""
    def inner(*arguments: Any) -> Any:
        began = time.process_time()
        try:
            return call(*arguments)
        finally:
            spent[0] += time.process_time() - began
    return inner


def burst(alerts: int, folder: Path) -> tuple[float, float, float]:
    """One incident of so many alerts: seconds for the states of a step, for the record of it, and to verify that."""
    found = tuple(Alert(f"node//{k}|x", f"node//{k}", "x", "firing", T0, T0, 0.9, 1e-6) for k in range(alerts))
    incident = Incident("inc-1", T0, T0, "open", "warning", (), found, (Cause("node//0", 1.0, (), ()),))
    states, audit, spent = EndStates(), Audit(folder), [[0.0], [0.0], [0.0]]
    ends = timed(states.update, spent[0])(T0, (), found, [incident], {}, lambda column: True)
    timed(audit.publish, spent[1])(Report(T0, ends=ends))
    audit.close()
    timed(chain.verify, spent[2])(folder)
    return spent[0][0], spent[1][0], spent[2][0]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for series, ticks in ((1_000, 600), (100_000, 30)):
            part = 100 * share(series, ticks, Path(scratch) / str(series))
            print(f"{f'share of the step, {series:,} series':<52}{part:>9.2f} %")
        states, record, check = burst(10_000, Path(scratch) / "burst")
    print(f"{'10,000 alerts at once: states, ms':<52}{1000 * states:>9.0f}")
    print(f"{'10,000 alerts at once: record, ms':<52}{1000 * record:>9.0f}")
    print(f"{'verified, entries/s':<52}{10_000 / check:>9,.0f}")


if __name__ == "__main__":
    sys.exit(main())
