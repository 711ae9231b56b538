"""The topology in a running daemon: the file, pushed calls, the address and the command that show it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from helpers import T0, bare_pipeline, pipeline
from pytest_httpserver import HTTPServer
from test_cli import run  # noqa: F401 - a fixture

from aiops import app
from aiops.capsules import cut
from aiops.feeds import TopologyFile
from aiops.intake import Intake
from aiops.meaning import parse_labels
from aiops.types import Batch, Edge, Links, Node
from aiops.web import forms
from aiops.yamlfile import Problems

STEP = 15.0
GOOD = "nodes:\n  - {id: service/shop/web, criticality: 3}\nedges:\n  - {from: service/shop/web, to: service/shop/cart}\n"


def step(intake: Intake, run: Any, at: float) -> None:  # noqa: F811
    for batch in intake.drain(at):
        run.step(batch)


# ----------------------------------------------------------------------------------------------------------- the file
def test_the_file_is_read_again_when_it_changes_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    """Errors name file, line, value and remedy; the last good topology stays until it is mended."""
    path, intake, run = tmp_path / "topology.yaml", Intake(STEP), bare_pipeline([])  # noqa: F811
    path.write_text(GOOD)
    file = TopologyFile(path)
    file.poll(T0, intake)
    step(intake, run, T0)
    assert run.graph.dependencies("service/shop/web") == [("service/shop/cart", "calls")]
    assert run.graph.criticality("service/shop/web") == 3.0
    bad = GOOD.replace("criticality: 3", "criticality: -1").replace("to: service/shop/cart", "too: x")
    path.write_text(bad)
    with pytest.raises(Problems) as caught:
        file.poll(T0 + 30, intake)
    told = [str(p) for p in caught.value.problems]
    assert all(t.startswith(f"{path}:") for t in told) and any(f"{path}:4: $.edges[0]" in t for t in told), told
    assert any(f"{path}:2: $.nodes[0].criticality" in t for t in told), told
    step(intake, run, T0 + 30)
    assert run.graph.criticality("service/shop/web") == 3.0
    path.write_text(GOOD.replace("cart", "till"))
    os.utime(path, (T0 + 50, T0 + 50))
    file.poll(T0 + 60, intake)
    step(intake, run, T0 + 60)
    assert run.graph.dependencies("service/shop/web") == [("service/shop/till", "calls")]


# -------------------------------------------------------------------------------------------- pushed, polled, replayed
def rows() -> list[tuple[float, str, str, float]]:
    """time, entity, labels, value of a service graph of three: web -> cart -> db, of which web stops after half an hour."""
    out = []
    for k in range(400):
        at = T0 + k * STEP
        out.append((at, "service//cart", 'client="web"', float(min(k, 120))))
        out.append((at, "service//db", 'client="cart"', float(k)))
    return out


def test_live_and_replay_find_the_same_calls_at_the_same_time(tmp_path: Path) -> None:
    """What came in through the intake, and the same as a recording: the same edges, the same ages."""
    metric, live, intake = "traces_service_graph_request_total", bare_pipeline([]), Intake(STEP)
    for k in range(400):
        at = T0 + k * STEP
        for t, entity, labels, value in rows():
            if t == at:
                intake.sample(t, entity, metric, parse_labels(labels), value, "counter")
        step(intake, live, at)
    lines = [f'{t},{e},{metric},"{labels.replace(chr(34), chr(34) * 2)}",{v}' for t, e, labels, v in rows()]
    (tmp_path / "metrics.csv").write_text("\n".join(["time,entity,metric,labels,value", *lines]) + "\n")
    (tmp_path / "fixture.yaml").write_text(f"name: calls\nstep: {STEP}\n")
    player = app.Player(tmp_path, None)
    player.play()
    told = [[(e["from"], e["to"], e["sources"]) for e in p.topology.page()["edges"]] for p in (live, player.pipeline)]
    assert told[0] == told[1] == [("service//cart", "service//db", ["service_graph"])]
    past = [[(e["from"], e["since"] - T0 < 60) for e in p.topology.page(T0 + 1800)["edges"]] for p in (live, player.pipeline)]
    assert past[0] == past[1] == [("service//cart", True), ("service//web", True)]


def test_calls_can_be_switched_off() -> None:
    """`topology: {calls: false}`."""
    from aiops import build, meaning

    run = build.pipeline(meaning.shipped(), (), "observe", ["absence"], calls=False)  # noqa: F811
    intake = Intake(STEP)
    for k in range(5):
        intake.sample(T0 + k, "service//cart", "traces_service_graph_request_total", {"client": "web"}, float(k), "counter")
        step(intake, run, T0 + k)
    assert not run.topology.page()["edges"] and run.topology.state() == []


# ------------------------------------------------------------------------------------------------------- what is shown
def test_what_is_shown_says_from_where_since_when_and_until_when() -> None:
    """In the form of the address, at a time, of one entity."""
    run = pipeline()  # noqa: F811
    run.step(Batch(T0, links=Links(edges=(Edge("pod/s/a", "node//1", "runs_on", "kubernetes"),))))
    run.step(Batch(T0 + 60, links=Links(edges=(Edge("pod/s/a", "node//2", "runs_on", "kubernetes"), Edge("x//1", "x//2")))))
    now, then, of = run.topology.page(), run.topology.page(T0 + 30), run.topology.page(entity="node//2")
    assert [(e["to"], e["sources"], e["since"], e["until"], e["confirmed"]) for e in of["edges"]] == [
        ("node//2", ["kubernetes"], T0 + 60, None, T0 + 60)]
    assert [(e["to"], e["until"]) for e in then["edges"]] == [("node//1", T0 + 60)]
    assert run.topology.page(T0 + 1e6)["at"] == T0 + 60, "of what is to come nothing is known"
    assert now["total"] == 2 and now["edges"][1]["sources"] == ["topology.yaml"] and len(run.topology.page(limit=1)["edges"]) == 1
    for page in (now, then, of, pipeline().topology.page()):
        forms.TopologyPage.model_validate(json.loads(json.dumps(page)))


def test_asking_for_the_topology_leaves_no_trace_in_it() -> None:
    """It is asked from other threads, between any two lines of a step: what the step remembers is the step's own."""
    run = pipeline()  # noqa: F811
    intake = Intake(STEP)
    for k in range(4):
        intake.sample(T0 + k, "service//cart", "traces_service_graph_request_total", {"client": "web"}, float(k + 1), "counter")
        step(intake, run, T0 + k)
    intake.links("kubernetes", Links((Node("service/shop/cart"), Node("service/shop/web"))))
    step(intake, run, T0 + 5)
    run.topology._namesakes = None
    assert {(e["from"], e["to"]) for e in run.topology.page()["edges"]} >= {("service/shop/web", "service/shop/cart")}
    assert run.topology._namesakes is None


def test_the_command_tells_the_topology(run: Any, httpserver: HTTPServer) -> None:  # noqa: F811
    """A row an edge, how many are not shown, and what is not known of the past."""
    edge = {"from": "service/shop/web", "to": "service/shop/cart", "kind": "calls", "sources": ["istio", "topology-file"],
            "since": T0, "until": None, "confirmed": T0 + 60}
    answer = {"at": T0 + 60, "version": 4, "exact_since": T0 + 100, "total": 7, "left_out": 0, "edges": [
        edge, {**edge, "to": "service/shop/old", "until": T0 + 90}]}
    url = httpserver.url_for("")
    httpserver.expect_request("/api/topology", query_string=f"limit=2&entity=web&at={T0 + 60:.3f}").respond_with_json(answer)
    code, out, err = run("topology", "--entity", "web", "--at", str(T0 + 60), "--limit", "2", "--server", url)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert (code, err) == (0, "") and lines == [
        "7 edges at 2001-09-09 01:47:40 UTC, version 4", "What was before 2001-09-09 01:48:20 UTC is not wholly known.",
        "FROM KIND TO SOURCES SINCE CONFIRMED",
        "service/shop/web calls service/shop/cart istio, topology-file 2001-09-09 01:46:40 UTC 2001-09-09 01:47:40 UTC",
        "service/shop/web calls service/shop/old istio, topology-file 2001-09-09 01:46:40 UTC gone 2001-09-09 01:48:10 UTC",
        "5 more are not shown. Name one end with --entity, or raise --limit."]
    httpserver.expect_request("/api/topology", query_string="limit=100").respond_with_json({**answer, "total": 0, "edges": []})
    assert run("topology", "--server", url)[1] == (
        "0 edges at 2001-09-09 01:47:40 UTC, version 4\nWhat was before 2001-09-09 01:48:20 UTC is not wholly known.\n")
    httpserver.expect_request("/api/topology", query_string="limit=1").respond_with_json(answer)
    httpserver.expect_request("/api/topology", query_string=f"limit=100&at={T0:.3f}").respond_with_json(answer)
    assert run("topology", "--at=-1m", "--server", url)[0] == 0, "a minute before the daemon's time"
    assert json.loads(run("topology", "--server", url, "-o", "json")[1])["version"] == 4
    assert run("topology", "--at", "soon", "--server", url)[0] == 2


def test_a_capsule_has_the_topology_that_differences_added_up_to() -> None:
    """What held when its span began, and each change in it, each as a whole of what is near."""
    a, b = (Edge("pod/s/a", f"node//{n}", "runs_on") for n in (1, 2))
    far = Edge("pod/s/x", "node//9", "runs_on")
    told = [(float("-inf"), Links((Node("pod/s/a", 2.0), Node("pod/s/x")), (a, far))),
            (T0 - 5, Links(edges=(b,), gone_edges=(a,), whole=False)), (T0 + 5, Links(gone_edges=(far,), whole=False)),
            (T0 + 9, Links((Node("pod/s/a", 3.0),), (a,), whole=False))]
    found = cut._links(told, ["pod/s/a"], set(), T0)
    assert found == [(T0, Links((Node("pod/s/a", 2.0),), (b,))), (T0 + 9, Links((Node("pod/s/a", 3.0),), (a, b)))]
    assert cut._ever(told).edges == (a, b, far)
