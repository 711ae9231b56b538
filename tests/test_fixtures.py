"""Every recording that comes with the program: small, complete, and judged as its ground truth says."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest

from aiops import app, verify
from aiops.replay import Result

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDERS = sorted(p.parent for p in FIXTURES.glob("*/expect.yaml"))
MAX_BYTES = 2_000_000


@lru_cache
def played(folder: Path) -> Result:
    return app.Player(folder, None).play()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
class TestRecording:
    def test_it_is_judged_as_its_ground_truth_says(self, folder):
        """The cause comes first, the expected decisions are taken, and nothing is raised where nothing is wrong."""
        expect = verify.read(folder)
        assert expect is not None
        assert verify.differences(expect, list(played(folder).incidents.values())) == []

    def test_nothing_in_it_is_left_out(self, folder):
        """Our own recordings are clean."""
        player = app.Player(folder, None)
        assert player.skipped() == {}
        assert sum(played(folder).counts.dropped.values()) == 0

    def test_it_is_small(self, folder):
        """Everybody downloads it."""
        assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < MAX_BYTES

    def test_it_says_what_it_is(self, folder):
        """Name, origin, and a line in the README."""
        assert (folder / "fixture.yaml").exists() and (folder / "topology.yaml").exists()
        assert f"`{folder.name}`" in (FIXTURES / "README.md").read_text(encoding="utf-8")

    @pytest.mark.slow
    def test_its_warm_up_is_over_before_its_first_fault(self, folder):
        """What happens before `score_from` is not judged."""
        expect = verify.read(folder)
        assert expect is not None and expect.score_from is not None
        assert all(expect.score_from < f.start < f.end for f in expect.faults)
        assert played(folder).started_at < expect.score_from < played(folder).ended_at


def test_the_shipped_faults_are_there():
    """The README promises them."""
    assert {p.name for p in FOLDERS} >= {"bad-deploy", "disk-full", "memory-leak", "slow-dependency"}
