"""From configuration to sources."""

from __future__ import annotations

import subprocess
import sys

import pytest

CONFIG = """\
sources:
  - prometheus: {url: "http://127.0.0.1:9"}
  - loki: {url: "http://127.0.0.1:9", query: '{a="b"}'}
  - kubernetes: {}
store: state
"""
MAKE = """
import sys
from pathlib import Path
from aiops import config, feeds, meaning
from aiops.clock import WallClock
made = feeds.sources(config.load(Path("aiops.yaml"), {}), WallClock(), meaning.shipped())
print(len(made), *(m in sys.modules for m in ("requests", "prometheus_api_client", "kubernetes.client")))
"""


@pytest.mark.slow
def test_clients_that_import_in_a_circle_are_there_before_there_are_threads(tmp_path):
    """Two sources that first import `requests` at once, each in its thread, find it half made and fail for a minute."""
    (tmp_path / "aiops.yaml").write_text(CONFIG, encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", MAKE], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["3", "True", "True", "True"], done.stderr
