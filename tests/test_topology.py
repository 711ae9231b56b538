"""Who depends on whom: what sources tell and what calls show, merged, over time, and bad graphs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from helpers import T0, bare_pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops import meaning
from aiops.intake import Intake
from aiops.links import Known, Merger, joined
from aiops.types import Batch, Edge, Links, Node, RawAlert, Series
from correlators import calls, topology
from correlators.calls import ENTER_STEPS, LEAVE_S
from correlators.graph import Graph, follow
from correlators.topology import Topology

STEP = 15.0


def links(*edges: tuple[str, str] | tuple[str, str, str], nodes: tuple[str, ...] = (), **more: Any) -> Links:
    return Links(tuple(Node(n) for n in nodes), tuple(Edge(*e) for e in edges), **more)  # type: ignore[arg-type]


def edges_of(graph: Graph) -> set[tuple[str, str, str]]:
    return {(e, t, kind) for e in graph.entities() for t, kind in graph.dependencies(e)}


# ------------------------------------------------------------------------------------------------------- differences
names = st.sampled_from([f"pod/s/{k}" for k in range(5)] + ["service/s/a", "node//n"])
some_edges = st.builds(Edge, names, names, st.sampled_from(["calls", "runs_on", "owns", "uses"]))
some_links = st.builds(lambda n, e: Links(tuple(Node(x, float(c)) for x, c in n), tuple(e)),
                       st.lists(st.tuples(names, st.integers(0, 2)), max_size=4), st.lists(some_edges, max_size=8))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["kubernetes", "otlp", "topology-file"]), some_links), min_size=1, max_size=8))
def test_a_graph_that_follows_differences_is_the_graph_that_is_built_whole(told) -> None:
    """Whatever is told in whatever order: cycles, self-loops, edges to nowhere, several kinds between two."""
    intake, run, last = Merger(), Topology(), {}
    for step, (source, found) in enumerate(told):
        last[source] = found
        intake.put(source, found)
        run.hear(Batch(T0 + step, links=intake.take()))
        whole = Merger()
        for name, one in last.items():
            whole.put(name, one)
        expected = Graph(whole.take() or Links())
        assert edges_of(run.graph) == edges_of(expected)
        assert set(run.graph.entities()) == set(expected.entities())
        assert all(run.graph.criticality(e) == expected.criticality(e) for e in expected.entities())
        assert run.graph.critical == expected.critical
        assert all(run.graph.reach(e) == set(expected.dependents(e)) for e in expected.entities())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(some_links, some_links, some_links)
def test_two_differences_in_a_row_are_one(first, second, third) -> None:
    """As after a gap in the journal: the header tells the whole, the batch what has changed since."""
    known = Known(first)
    changes = known.put(second), known.put(third)
    at_once, by_and_by = Known(first), Known(joined(Links(), first))
    at_once.put(joined(*changes))
    for change in changes:
        by_and_by.put(change)
    assert at_once.whole() == by_and_by.whole() == known.whole() == joined(first, joined(*changes))


def test_only_what_changed_is_told() -> None:
    """A pod that comes to a cluster of thousands is one node and two edges of difference."""
    intake = Intake(STEP)
    pods = [f"pod/s/{k}" for k in range(3000)]
    intake.links("kubernetes", links(*((p, f"node//{k % 50}", "runs_on") for k, p in enumerate(pods)), nodes=tuple(pods)))
    assert len(intake.drain(T0)[-1].links.nodes) == 3000
    intake.links("kubernetes", links(("pod/s/new", "node//1", "runs_on"), ("service/s/a", "pod/s/new", "owns"),
                                     nodes=("pod/s/new",), whole=False))
    found = intake.drain(T0 + 1)[-1].links
    assert not found.whole and len(found.nodes) == 1 and len(found.edges) == 2


def test_a_person_s_word_of_criticality_counts_more_than_what_was_found() -> None:
    """Sources that contradict one another: the file first; labels of all are kept."""
    m = Merger()
    m.put("kubernetes", Links((Node("service/s/a", 2.0, {"zone": "1", "version": "7"}),)))
    m.put("topology-file", Links((Node("service/s/a", 9.0, {"zone": "2"}),)))
    assert m.take().nodes == (Node("service/s/a", 9.0, {"zone": "2", "version": "7"}),)
    m.put("topology-file", Links())
    assert m.take().nodes == (Node("service/s/a", 2.0, {"zone": "1", "version": "7"}),)


def test_an_edge_of_two_sources_stays_until_both_have_dropped_it() -> None:
    """And says who tells it."""
    m, edge = Merger(), Edge("service/s/a", "service/s/b")
    m.put("x", Links(edges=(edge,)))
    m.put("y", Links(edges=(edge,)))
    assert [e.told for e in m.take().edges] == ["x,y"]
    m.put("x", Links())
    assert [e.told for e in m.take().edges] == ["y"]
    m.put("y", Links())
    assert m.take().gone_edges == (edge,)


# --------------------------------------------------------------------------------------------------------- bad graphs
def test_cycles_self_loops_and_edges_to_nowhere_do_no_harm() -> None:
    """An entity that depends on itself says nothing; one that nobody describes is known by its edges, and goes with them."""
    run = Topology()
    run.hear(Batch(T0, links=links(("a//1", "a//2"), ("a//2", "a//1"), ("a//1", "a//1"), ("a//2", "x//nowhere"))))
    assert run.graph.dependents("a//1") == ["a//2"] and run.graph.neighbours("a//1") == ("a//2",)
    assert "x//nowhere" in run.graph and run.graph.criticality("x//nowhere") == 1.0
    run.hear(Batch(T0 + 1, links=links(("a//1", "a//2"))))
    assert "x//nowhere" not in run.graph


def test_a_pod_that_moves_has_one_node_and_its_past() -> None:
    """An entity that changes its parent: the graph of then can be asked for."""
    run = Topology()
    run.hear(Batch(T0, links=links(("pod/s/a", "node//1", "runs_on"))))
    run.hear(Batch(T0 + 100, links=links(("pod/s/a", "node//2", "runs_on"))))
    assert run.graph.dependencies("pod/s/a") == [("node//2", "runs_on")]
    assert [h.edge.target for h in run.edges(T0 + 50)] == ["node//1"]
    assert [h.edge.target for h in run.edges(T0 + 100)] == ["node//2"]
    [now] = run.edges()
    assert (now.since, now.until, now.confirmed) == (T0 + 100, None, T0 + 100) and run.version == 2


def test_the_past_that_is_kept_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edges that went are forgotten, the oldest first, and it is known since when the past is exact."""
    monkeypatch.setattr(topology, "MAX_GONE", 3)
    run = Topology()
    for k in range(6):
        run.hear(Batch(T0 + k, links=links((f"pod/s/{k}", "node//1", "runs_on"))))
    assert len(run._gone) == 3 and run.exact_since == T0 + 2
    assert [h.edge.source for h in run.edges(T0 + 3)] == ["pod/s/3"]


def test_a_graph_that_comes_late_is_used_from_then_on() -> None:
    """Telemetry may be there before the topology."""
    run = bare_pipeline([])
    run.step(Batch(T0))
    assert "a//1" not in run.graph
    run.step(Batch(T0 + 1, links=links(("a//1", "a//2"))))
    assert run.graph.neighbours("a//1") == ("a//2",) and run.evidence.graph is run.graph


def test_what_many_machines_share_is_a_hub() -> None:
    """Two machines of one zone, or on one leaf, are no neighbours: the quiet zone does not glue."""
    shared = ("zone//a", "leaf//s1", "nvlink_domain//d", "tier-3//x")
    g = Graph(links(*(("node//1", s, "runs_on") for s in shared), *(("node//2", s, "runs_on") for s in shared)))
    assert all(g.is_hub(s) for s in shared)
    assert g.distance("node//1", "node//2", 2, set()) is None and g.distance("node//1", "node//2", 2, {"leaf//s1"}) == 2


# -------------------------------------------------------------------------------------------------------------- calls
ISTIO = {"reporter": "source", "source_workload": "web", "source_workload_namespace": "shop", "source_canonical_service": "web",
         "destination_service_name": "cart", "destination_service_namespace": "shop", "response_code": "200"}
SAYS = [
    ("istio_requests_total", ISTIO, ("service/shop/web", "service/shop/cart")),
    ("istio_requests_total", {**ISTIO, "source_canonical_service": "unknown"}, ("service/shop/web", "service/shop/cart")),
    ("istio_tcp_sent_bytes_total", {**ISTIO, "destination_service_name": "db"}, ("service/shop/web", "service/shop/db")),
    ("istio_requests_total", {**ISTIO, "destination_service_name": "PassthroughCluster"}, None),
    ("istio_requests_total", {**ISTIO, "source_workload": "unknown", "source_canonical_service": "unknown"}, None),
    ("istio_requests_total", {**ISTIO, "destination_service_name": "web"}, None),
    ("istio_requests_total", {"reporter": "source"}, None),
    ("response_total", {"direction": "outbound", "namespace": "shop", "pod": "web-1", "deployment": "web",
                        "dst_namespace": "shop", "dst_service": "cart"}, ("service/shop/web", "service/shop/cart")),
    ("response_total", {"direction": "inbound", "namespace": "shop", "pod": "web-1", "dst_service": "cart"}, None),
    ("response_total", {"code": "200"}, None),
    ("response_total", {"direction": "outbound", "namespace": "shop", "pod": "web-1", "dst_namespace": "shop",
                        "dst_service": "cart"}, ("pod/shop/web-1", "service/shop/cart")),
    ("outbound_http_route_request_statuses_total",
     {"namespace": "shop", "pod": "web-1", "deployment": "web", "parent_kind": "Service", "parent_namespace": "shop",
      "parent_name": "cart"}, ("service/shop/web", "service/shop/cart")),
    ("traces_service_graph_request_total", {"client": "web", "server": "cart"}, ("service//web", "service//cart")),
    ("traces_service_graph_request_total", {"client": "web", "server": "cart", "client_k8s_namespace_name": "a",
                                            "server_k8s_namespace_name": "b"}, ("service/a/web", "service/b/cart")),
    ("traces_service_graph_request_total", {"client": "user", "server": "cart", "virtual_node": "client"}, None),
    ("traces_service_graph_request_total", {"client": "", "server": "cart"}, None),
    ("traces_span_metrics_calls_total", {"service_name": "web", "span_kind": "SPAN_KIND_CLIENT", "peer_service": "cart"},
     ("service//web", "service//cart")),
    ("traces_span_metrics_calls_total", {"service_name": "web", "span_kind": "SPAN_KIND_SERVER", "peer_service": "cart"}, None),
    ("traces_span_metrics_calls_total", {"service_name": "web", "span_kind": "SPAN_KIND_CLIENT"}, None),
    ("http_requests_total", {"service": "cart"}, None),
]


@pytest.mark.parametrize(("metric", "labels", "expected"), SAYS)
def test_what_a_series_says_of_a_call(metric, labels, expected) -> None:
    """Through the packs, which take the labels that make the entity, as every source does."""
    entity, own = meaning.shipped().entity(metric, labels)
    found = calls.pair_of(Series(0, entity, metric, meaning.format_labels(own)))
    assert (found and (found[0].names[0], found[1].names[0])) == expected


class Mesh:
    """A pipeline behind an intake, fed with counters of calls."""

    def __init__(self) -> None:
        self.intake, self.run, self.at = Intake(STEP), bare_pipeline([]), T0
        self.totals: dict[tuple[str, str], float] = {}

    def step(self, *pairs: tuple[str, str], silent: float = 0.0, **more: Any) -> set[tuple[str, str]]:
        """One tick in which these called; all others that ever did report what they had. The edges there are now."""
        self.at += silent or STEP
        for pair in pairs:
            self.totals[pair] = self.totals.get(pair, 0.0) + 5
        for (a, b), total in self.totals.items():
            labels = {"client": a, "server": b}
            entity, own = meaning.shipped().entity("traces_service_graph_request_total", labels)
            self.intake.sample(self.at, entity, "traces_service_graph_request_total", own, total, "counter")
        for batch in self.intake.drain(self.at):
            self.run.step(batch)
        return {(a.rpartition("/")[2], b.rpartition("/")[2]) for a, b, _ in edges_of(self.run.graph)}


def test_calls_become_edges_and_go_when_nobody_calls_any_more() -> None:
    """Through intake and pipeline; a counter that stands still is no call, however often it is reported."""
    mesh, pair = Mesh(), ("web", "cart")
    for _ in range(ENTER_STEPS - 1):
        assert mesh.step(pair) == set(), "one call may have been anybody's"
    assert mesh.step(pair) == {pair}
    while mesh.at < T0 + LEAVE_S:
        assert mesh.step() == {pair}
    for _ in range(12):
        left = mesh.step()
    assert left == set()
    assert mesh.step(pair) == set() and mesh.step(pair) == {pair}


@pytest.mark.parametrize(("calling", "incidents"), [(True, 1), (False, 2)])
def test_alerts_along_a_call_are_one_incident(calling: bool, incidents: int) -> None:
    """Nothing was configured: the counters of calls alone made them neighbours, and say who was hurt by whom."""
    mesh = Mesh()
    for _ in range(4):
        mesh.step(("web", "cart"), *([("cart", "db")] if calling else []))
    for entity in ("service//cart", "service//db"):
        mesh.intake.alert(RawAlert(0, mesh.at, entity, "HighLatency"))
    mesh.step(("web", "cart"))
    found = mesh.run.book.open()
    assert len(found) == incidents
    assert "service//web" in {e for i in found for e in i.impact.entities}


def test_an_edge_that_is_in_trouble_does_not_age() -> None:
    """Who is down is not called; that it was is what explains the incident."""
    found = {}
    for held in ((), ("service//cart",)):
        run = Topology()
        series = Series(0, "service//cart", "traces_service_graph_request_total", 'client="web"')
        for k in range(3):
            run.hear(Batch(T0 + k, np.array([0], np.int32), np.array([T0 + k]), np.array([k + 1.0]),
                           (series,) if not k else ()))
        run.hear(Batch(T0 + LEAVE_S + 300), held)
        found[held] = edges_of(run.graph)
    assert found == {(): set(), ("service//cart",): {("service//web", "service//cart", "calls")}}


def test_calls_find_the_services_of_the_cluster() -> None:
    """A workload stands for itself where no service has its name; a service without a namespace is the only one so called."""
    mesh = Mesh()
    mesh.intake.links("kubernetes", links(nodes=("deployment/shop/web", "service/shop/cart")))
    for _ in range(3):
        mesh.step(("web", "cart"))
    assert edges_of(mesh.run.graph) == {("service//web", "service/shop/cart", "calls"),
                                        ("service//cart", "service/shop/cart", "owns")}, "its own signals are about that service"
    mesh.intake.links("kubernetes", links(nodes=("service/shop/cart", "service/other/cart")))
    mesh.step(("web", "cart"))
    assert edges_of(mesh.run.graph) == {("service//web", "service//cart", "calls")}, "two of one name: neither is meant for sure"
    both = calls.Party(("service/shop/web", "deployment/shop/web"))
    run = Topology()
    run.hear(Batch(T0, links=links(nodes=("deployment/shop/web",))))
    assert run._resolve(both) == "deployment/shop/web"


def test_a_series_that_is_retired_no_longer_speaks() -> None:
    """Its number may go to another series, which is about something else."""
    run = Topology()
    series = Series(0, "service//cart", "traces_service_graph_request_total", 'client="web"')
    sample = (np.array([0], np.int32), np.array([T0]))
    run.hear(Batch(T0, *sample, np.array([1.0]), (series,)))
    run.hear(Batch(T0 + 1, *sample, np.array([2.0]), (Series(0, "a//1", "up"),), retired=np.array([0], np.int32)))
    run.hear(Batch(T0 + 2, *sample, np.array([3.0])))
    assert edges_of(run.graph) == set()
    run.hear(Batch(T0 + LEAVE_S + 100))
    assert len(run.calls) == 0, "and the pair is forgotten"


def test_pairs_have_a_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """A label that explodes costs no memory without end; what is left out is counted."""
    monkeypatch.setattr(calls, "MAX_PAIRS", 10)
    run = Topology()
    run.hear(Batch(T0, new_series=tuple(Series(k, f"service//{k}", "traces_service_graph_request_total", 'client="web"')
                                        for k in range(50))))
    assert len(run.calls) == 10 and run.calls.left_out == 40


def test_calls_survive_a_restart() -> None:
    """As plain lists; without waiting for the counters to move twice."""
    mesh = Mesh()
    for _ in range(3):
        mesh.step(("web", "cart"))
    kept = json.loads(json.dumps(mesh.run.topology.state()))
    again = Topology()
    again.restore(kept)
    again.hear(Batch(mesh.at + 1))
    assert edges_of(again.graph) == {("service//web", "service//cart", "calls")}


def test_the_same_calls_in_any_order_are_the_same_edges() -> None:
    """Nothing hangs on the order of series or of hashes."""
    found = []
    for order in (1, -1):
        mesh = Mesh()
        for _ in range(3):
            mesh.step(*[(f"a{k}", f"b{k % 3}") for k in range(9)][::order])
        found.append((mesh.run.topology.version, sorted(edges_of(mesh.run.graph))))
    assert found[0] == found[1] and len(found[0][1]) == 9


def test_graphs_that_follow_forget_whom_nobody_names() -> None:
    """A node goes when it is told to, but for those that edges still lead to."""
    g = Graph(links(("a//1", "a//2"), nodes=("a//1", "a//2", "a//3")))
    follow(g._g, Links(gone_nodes=("a//2", "a//3", "a//4"), whole=False))
    assert set(g.entities()) == {"a//1", "a//2"}
