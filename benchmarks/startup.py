"""How long a person waits: `aiops --help`, and `aiops run` until /readyz says yes. Run with `make bench`.

Each figure is the median of several starts of a fresh process; the first start, which fills caches, is left out.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

PORT = 18_750
RUNS = 5


def main() -> None:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    print(f"{'what':<44}{'median s':>10}{'slowest s':>12}")
    what = {"aiops --help": help_page, "the interpreter alone": nothing, "aiops run to ready": ready}
    for name, measure in what.items():
        times = [measure(env) for _ in range(RUNS + 1)][1:]
        print(f"{name:<44}{statistics.median(times):>10.2f}{max(times):>12.2f}")


def timed(command: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def help_page(env: dict[str, str]) -> float:
    return timed([sys.executable, "-m", "aiops.cli", "--help"], env)


def nothing(env: dict[str, str]) -> float:
    return timed([sys.executable, "-c", "pass"], env)


def ready(env: dict[str, str]) -> float:
    """Seconds from start to the first 200 of /readyz, on an empty store."""
    with tempfile.TemporaryDirectory() as store:
        began = time.perf_counter()
        daemon = subprocess.Popen(
            [sys.executable, "-m", "aiops.cli", "run", "--store", str(Path(store) / "s"), "--listen", f"127.0.0.1:{PORT}"],
            env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while time.perf_counter() - began < 60:
                if _ok(f"http://127.0.0.1:{PORT}/readyz"):
                    return time.perf_counter() - began
                time.sleep(0.05)
            raise SystemExit("aiops run was not ready within a minute")
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)


def _ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    main()
