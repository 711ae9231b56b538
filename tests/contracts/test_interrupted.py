"""Every remediation, killed at every point, and gone on with by the next run: no write is done twice, none is lost."""

from __future__ import annotations

import pytest
from fakes.mortal import Life, run
from test_remediations import EXAMPLES, Simulated, action

from aiops.interfaces import Ambiguous


def undisturbed(name, example, path):
    world = Simulated()
    outcome = run(world.cluster, path, Life(-1), [action(name, example)])
    return outcome["a-1"], world.changes()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_killed_anywhere_it_is_done_once(name, example, tmp_path):
    """Before and after every write, and before and after every line of the ledger, twice in a row.

    Of a call that nobody can look up it is said so: it may be lost, and is never made twice.
    """
    status, wanted = undisturbed(name, example, tmp_path / "calm.sqlite")
    assert status == "done"
    for point in range(1000):
        world, path = Simulated(), tmp_path / f"{point}.sqlite"
        if run(world.cluster, path, Life(point), [action(name, example)]) is not None:
            assert point > 3
            break
        run(world.cluster, path, Life(point // 2))
        outcomes = run(world.cluster, path, Life(-1), [action(name, example)])
        unknown = "unknown" in outcomes.values() and all(c.verb == "call" for c in world.cluster.calls)
        assert world.changes() == wanted or (unknown and world.changes() == []), f"killed at point {point}"
        assert set(outcomes.values()) <= {"done", "failed"} or unknown


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_an_answer_that_never_came_is_looked_up_and_not_asked_for_again(name, example, tmp_path):
    """Done or not done: in both cases the write was sent once."""
    for reached in (True, False):
        world, sent = Simulated(), []
        write = world.cluster.write

        def silent(change, write=write, sent=sent, reached=reached):
            sent.append(change)
            if reached:
                write(change)
            raise Ambiguous("no answer")
        world.cluster.write = silent
        outcomes = run(world.cluster, tmp_path / f"{reached}.sqlite", Life(-1), [action(name, example)])
        assert len({str(c) for c in sent}) == len(sent)
        known = not sent or (reached and all(c.verb != "call" for c in sent))
        assert outcomes["a-1"] == ("done" if known else "unknown")
