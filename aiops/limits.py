"""How much may be away at once in one failure domain: as a count and as a share, of which both must hold."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

from aiops.yamlfile import Strict


def _share(value: object) -> object:
    """`25%` as 0.25."""
    match = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%", value.strip()) if isinstance(value, str) else None
    if match is None or not 0.0 < float(match[1]) <= 100.0:
        raise ValueError(f"{value!r} is not a share. Write one from 1% to 100%, for example 25%.")
    return float(match[1]) / 100.0


Share = Annotated[float, BeforeValidator(_share), PlainSerializer(lambda share: f"{share * 100:g}%")]
Count = Annotated[int, Field(ge=0, le=100_000)]
_LABEL = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
Label = Annotated[str, Field(max_length=317, pattern=_LABEL)]


class Limit(Strict):
    """At most `count`, and at most `share` of all (0..1, rounded down, but one). A count of 0: never any."""

    count: Count = 1
    share: Share = 0.25

    def most(self, total: int) -> int:
        """How many of so many may be away at once."""
        return min(self.count, max(1, math.floor(self.share * total + 1e-9)))

    def __str__(self) -> str:
        return f"count {self.count}, share {self.share * 100:g}%"


class NodesLimit(Limit):
    share: Share = 0.10


class GroupLimit(Limit):
    """`label` names what nodes have in common. Without one: zone, else NVLink domain, else instance type."""

    label: Label | None = None
    share: Share = 0.34


class Limits(Strict):
    """Of all nodes, of the nodes of one group, and of the pods of one service."""

    nodes: NodesLimit = NodesLimit()
    node_group: Annotated[GroupLimit, Field(alias="nodeGroup")] = GroupLimit()
    service: Limit = Limit()
