"""The NVML source against the driver of this machine, where there is one.

Run it alone: `pytest tests/test_nvml_real.py -s`. With NVML_OUT=FILE what was read is kept as JSON lines, one a sample,
as material for a fixture.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from fakes.collected import Collected

from aiops import meaning, reach
from aiops.sources.nvml.source import NvmlSource

pytestmark = pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="no NVIDIA driver on this machine")
NOW = 1_700_000_000.0
POLLS = 5


def test_the_gpus_of_this_machine_are_read() -> None:
    """Plausible figures in known metrics, quickly; what is absent is named, and everything is given back."""
    source, got = NvmlSource(node="here"), Collected()
    assert source.available() is None
    spent = []
    for k in range(POLLS):
        began = time.perf_counter()
        source.poll(NOW + 15 * k, got)
        spent.append(time.perf_counter() - began)
    source.close()
    pack = meaning.load(names=["dcgm"])
    print(f"\nseconds a poll: {', '.join(f'{s:.3f}' for s in spent)}", *source.notes.values(), sep="\n")
    assert {s.metric for s in got.samples if not pack.knows(s.metric)} == set()
    assert all(0 <= v <= 100 for v in got.values("DCGM_FI_DEV_GPU_UTIL"))
    assert all(0 <= v < 120 for v in got.values("DCGM_FI_DEV_GPU_TEMP"))
    assert all(used + free <= total * 1.01 for used, free, total in zip(
        *(got.values(f"DCGM_FI_DEV_FB_{name}") for name in ("USED", "FREE", "TOTAL")), strict=True))
    assert all(0 <= s.value <= 1.01 for s in got.samples if s.metric.startswith("DCGM_FI_PROF_"))
    assert min(spent) < 0.5 and not [n for n in source.notes.values() if "Unknown Error" in n]
    if out := os.environ.get("NVML_OUT"):
        rows = (json.dumps({"time": s.time, "entity": s.entity, "metric": s.metric, "labels": s.labels, "value": s.value,
                            "kind": s.kind}) for s in got.samples)
        Path(out).write_text("\n".join(rows) + "\n")


def test_the_doctor_names_the_gpus_of_this_machine() -> None:
    """Driver and GPUs first, then what each gives."""
    findings = list(reach.nvml())
    print("", *(f"{f.what}: {f.state}: {f.text}" for f in findings), sep="\n")
    assert findings[0].state == "ok" and findings[0].text.startswith("driver ")
    assert any(f.text.endswith("metrics can be read.") for f in findings)
