"""What if one item of evidence were not there? The verdict anew, from the contributions alone.

Takes an item out of every candidate that has it and ranks them again. What the item would have changed in other items (an
explanation by a candidate that loses its evidence) stays as it was: it is the sum that is checked, not the arithmetic behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aiops.types import Cause
from correlators.rootcause import FLOOR


def ablated(causes: Sequence[Cause], item: str) -> tuple[Cause, ...]:
    """The causes without the reasons whose text holds `item` (any case), best first; shares add up to 1."""
    left = [replace(c, reasons=tuple(r for r in c.reasons if item.casefold() not in r.text.casefold())) for c in causes]
    score = {c.entity: max(FLOOR, sum(r.contribution for r in c.reasons)) for c in left}
    total = sum(score.values()) or 1.0
    return tuple(sorted((replace(c, score=score[c.entity] / total) for c in left), key=lambda c: -c.score))
