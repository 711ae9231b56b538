"""The two YAML files of a recording: `fixture.yaml`, what it is, and `topology.yaml`, who depends on whom."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from aiops import yamlfile
from aiops.types import Edge, EdgeKind, Kind, Links, Node
from aiops.yamlfile import Strict


class MetricAbout(Strict):
    kind: Kind = "unknown"
    unit: str = ""


class About(BaseModel):
    """`fixture.yaml`. Unknown keys are somebody's notes and left alone."""

    name: str = ""
    description: str = ""
    origin: str = ""
    step: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    metrics: dict[str, MetricAbout] = {}


class NodeRule(Strict):
    id: str
    criticality: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    labels: dict[str, str] = Field(default={})


class EdgeRule(Strict):
    source: str = Field(alias="from")
    target: str = Field(alias="to")
    kind: Literal["calls", "runs_on", "owns", "uses"] = "calls"


class Topology(Strict):
    """`topology.yaml`: `from` depends on `to`."""

    nodes: list[NodeRule] = Field(default=[])
    edges: list[EdgeRule] = Field(default=[])

    def links(self) -> Links:
        def edge(e: EdgeRule) -> Edge:
            kind: EdgeKind = e.kind
            return Edge(e.source, e.target, kind)
        return Links(tuple(Node(n.id, n.criticality, n.labels) for n in self.nodes), tuple(edge(e) for e in self.edges))


def read_topology(path: Path) -> Links:
    """A topology file. Raises Problems with file, line and remedy."""
    documents = yamlfile.read(path)
    return yamlfile.validate(documents[0], Topology).links() if documents else Links()
