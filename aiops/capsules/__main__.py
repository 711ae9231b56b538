"""`python -m aiops.capsules JOB`: what the daemon starts for each capsule. Exit code 0: made; 2: a bug; 3: disk or journal."""

from __future__ import annotations

import sys
from pathlib import Path

from aiops.capsules.make import make
from aiops.sinks.journal import JournalError

MADE, UNUSABLE, REFUSED = 0, 2, 3


def main(arguments: list[str]) -> int:
    """One line on stderr says why there is none."""
    try:
        made = make(Path(arguments[0]))
    except (OSError, JournalError) as e:
        sys.stderr.write(f"{getattr(e, 'strerror', None) or e}\n")
        return REFUSED
    except Exception as e:  # noqa: BLE001 - whatever it is: the daemon goes on, and a person is told
        sys.stderr.write(f"{type(e).__name__}: {e}\n")
        return UNUSABLE
    sys.stdout.write(f"{made['bytes']}\n")
    return MADE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
