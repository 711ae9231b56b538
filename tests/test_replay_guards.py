"""A replay acts under the guards of the daemon: who was away in the recording is away in the replay."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import STEP_S, T0, write_csv

from aiops import app, build, meaning
from aiops.cluster.actuator import SimulatedActuator
from aiops.cluster.checks import not_paused
from aiops.cluster.ownership import hands_off
from aiops.cluster.radius import Radius
from aiops.cluster.recorded import CORDONED, Recorded
from aiops.cluster.simulated import SimulatedCluster
from aiops.intake import Intake
from aiops.limits import Limits
from aiops.loop import NoActuator, advance
from aiops.replay import replay
from aiops.sinks.journal import Journal, JournalWriter
from aiops.types import Batch, Edge, Links, Node, Series

TICKS, FAULT = 70, 42
NODES = [f"node//n{k}" for k in range(12)]
TOPOLOGY = Links(tuple(Node(n, labels={"rack": "r1"}) for n in NODES), (Edge("pod/shop/api-0", NODES[0], "runs_on"),))
READY = 'condition="Ready",status="true"'
POLICY = """\
apiVersion: aiops.io/v1
kind: RemediationPolicy
metadata: {name: cordon}
spec:
  trigger: {type: Incident}
  actions: [{type: Cordon, condition: "cause.kind == 'node'", target: {node: "${cause.name}"}}]
  mode: act
  guards: {cooldown: 0s, maxActions: {count: 9, per: 1h}}
"""


def rows(cordoned_from=None, not_ready_from=None):
    """A machine whose errors rise, and what kube-state-metrics says of two others."""
    wave = np.random.default_rng(7).uniform(0.9, 1.1, TICKS)
    for k in range(TICKS):
        at = T0 + k * STEP_S
        yield at, NODES[1], "app_errors", "", float(wave[k] + 30 * (FAULT <= k < FAULT + 10))
        yield at, NODES[7], CORDONED, "", float(cordoned_from is not None and k >= cordoned_from)
        yield at, NODES[8], "kube_node_status_condition", READY, float(not_ready_from is None or k < not_ready_from)


@pytest.fixture
def policies(tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "cordon.yaml").write_text(POLICY)
    return tmp_path / "policies"


def recorded(folder, told):
    """The recording as a folder."""
    write_csv(folder, ([t, e, m, '"' + labels.replace('"', '""') + '"', v] for t, e, m, labels, v in told),
              "time,entity,metric,labels,value")
    nodes = ", ".join(f"{{id: {n.entity}, labels: {{rack: r1}}}}" for n in TOPOLOGY.nodes)
    (folder / "topology.yaml").write_text(f"nodes: [{nodes}]\nedges: [{{from: pod/shop/api-0, to: {NODES[0]}, kind: runs_on}}]\n")
    (folder / "fixture.yaml").write_text(f"name: x\nstep: {STEP_S:g}\n")
    return folder


def live(folder, told, policies, away):
    """The same telemetry through the intake, on a cluster in which these are away as the rows say; with a journal."""
    cluster = SimulatedCluster.from_links(TOPOLOGY)
    actuator = SimulatedActuator(cluster, [not_paused, hands_off, Radius(Limits(), lambda: cluster.now)])
    pipeline = build.pipeline(known := meaning.shipped(), build.policies(policies, known), "act")
    journal, intake = JournalWriter(folder, {"started_at": T0}), Intake(STEP_S)
    intake.links("topology", TOPOLOGY)
    told = list(told)
    for k in range(TICKS):
        for t, entity, metric, labels, value in told[3 * k:3 * k + 3]:
            intake.sample(t, entity, metric, dict(x.replace('"', "").split("=") for x in labels.split(",") if x), value)
        away(cluster, k)
        for batch in intake.drain(T0 + k * STEP_S, tuple(actuator.collect())):
            journal.write(batch)
            advance(pipeline, batch, actuator, ())
    journal.close(pipeline.book.digest())
    return pipeline


def decided(incidents):
    """What was decided, and what became of it."""
    return [([(a.type, a.target, a.decision, a.at) for a in i.actions], [(o.status, o.reason) for o in i.outcomes])
            for i in incidents]


def cordoned(cluster, k):
    cluster.objects[NODES[7]]["spec"]["unschedulable"] = k >= 20


def not_ready(cluster, k):
    cluster.objects[NODES[8]]["status"] = {"conditions": [{"type": "Ready", "status": "True" if k < 20 else "False"}]}


@pytest.mark.parametrize(("given", "away", "status", "said"), [
    ({"cordoned_from": 20}, cordoned, "refused", "1 of 12 of the nodes are away (n7 cordoned), and limits.nodes allows 1"),
    ({"not_ready_from": 20}, not_ready, "refused", "1 of 12 of the nodes are away (n8 not ready), and limits.nodes allows 1"),
    ({}, lambda cluster, k: None, "done", "Cordon node//n1.")])
def test_live_its_journal_and_a_recording_of_the_same_decide_alike(tmp_path, policies, given, away, status, said):
    """One of twelve may be away, and in the first two cases one is, by others."""
    ran = live(tmp_path / "journal", rows(**given), policies, away)
    want = decided(ran.book.current())
    assert want[0][0][0][:3] == ("Cordon", "node//n1", "act")
    assert want[0][1][0][0] == status and said in want[0][1][0][1]
    result = app.Player(recorded(tmp_path / "recording", rows(**given)), policies).play()
    assert decided(result.incidents.values()) == want
    fresh = build.pipeline(known := meaning.shipped(), build.policies(policies, known), "act")
    again = replay("again", Journal(tmp_path / "journal").batches(), fresh, NoActuator())
    assert again.digest == ran.book.digest() == result.digest


def test_other_limits_allow_it(tmp_path, policies):
    """The same recording, where two may be away."""
    wide = Limits.model_validate({"nodes": {"count": 2, "share": "50%"}})
    result = app.Player(recorded(tmp_path / "r", rows(cordoned_from=20)), policies, limits=wide).play()
    assert [o.status for i in result.incidents.values() for o in i.outcomes][:1] == ["done"]


def test_pods_of_a_service_go_one_after_the_other_in_a_replay_too():
    """The simulated controller puts another in each one's place at once, so all go in the end."""
    links = Links((), tuple(Edge("service/shop/api", f"pod/shop/api-{k}", "owns") for k in range(4)))
    cluster = SimulatedCluster.from_links(links)
    actuator = SimulatedActuator(cluster, [Radius(Limits(), lambda: cluster.now, fresh_s=0.0)])
    from fakes.acting import action
    actuator.submit([action("Restart", {"pod": "selector:app=api"}, max_unavailable=4)])
    assert [o.status for o in actuator.collect()] == ["done"]
    assert [c.entity for c in cluster.calls] == [f"pod/shop/api-{k}" for k in range(4)]


# ------------------------------------------------------------------------------------------------- what is told to it
def told(cluster, *values, series, retired=(), links=None):
    """One batch with a value of each series; None of those that are silent."""
    said = [(k, v) for k, v in enumerate(values) if v is not None]
    return Batch(T0, np.array([k for k, _ in said], np.int32), np.full(len(said), T0), np.array([v for _, v in said]),
                 tuple(series), links=links, retired=np.array(retired, np.int32))


def test_what_we_did_stands_until_the_recording_says_something_new():
    """It tells of a world in which we did nothing: it only counts where it changes."""
    cluster = SimulatedCluster.from_links(TOPOLOGY)
    state, first = Recorded(cluster), [Series(0, NODES[1], CORDONED, "", "gauge")]

    def is_cordoned():
        return bool(cluster.objects[NODES[1]]["spec"].get("unschedulable"))
    state.tell(told(cluster, 0.0, series=first))
    cluster.objects[NODES[1]]["spec"]["unschedulable"] = True
    state.tell(told(cluster, 0.0, series=()))
    assert is_cordoned()
    state.tell(told(cluster, 1.0, series=()))
    state.tell(told(cluster, float("nan"), series=()))
    assert is_cordoned()
    state.tell(told(cluster, 0.0, series=()))
    assert not is_cordoned()


def test_what_does_not_belong_is_passed_over():
    """Other conditions, other metrics, malformed labels, machines that are not there, numbers that mean another series now."""
    cluster = SimulatedCluster.from_links(TOPOLOGY)
    before = repr(cluster.objects)
    series = [Series(0, NODES[1], "kube_node_status_condition", 'condition="DiskPressure",status="true"', "gauge"),
              Series(1, NODES[1], "kube_node_status_condition", 'condition="Ready",status="false"', "gauge"),
              Series(2, NODES[1], "kube_node_status_condition", 'condition="', "gauge"),
              Series(3, "node//gone", CORDONED, "", "gauge"), Series(4, NODES[1], "load1", "", "gauge")]
    state = Recorded(cluster)
    state.tell(told(cluster, 0.0, 0.0, 0.0, 1.0, 0.0, series=series))
    state.tell(told(cluster, *[None] * 3, 1.0, series=[Series(3, NODES[1], "load1", "", "gauge")], retired=[3]))
    assert repr(cluster.objects) == before


def test_the_cluster_follows_the_topology():
    """Machines and pods come and go; those that stay keep what was done to them."""
    cluster = SimulatedCluster.from_links(TOPOLOGY)
    cluster.objects[NODES[2]]["spec"]["unschedulable"] = True
    later = Links((*TOPOLOGY.nodes[1:], Node("node//new")), (Edge("pod/shop/api-1", NODES[2], "runs_on"),))
    Recorded(cluster).tell(told(cluster, series=(), links=later))
    assert sorted(cluster.objects) == sorted([*NODES[1:], "node//new", "pod/shop/api-1"])
    assert cluster.objects[NODES[2]]["spec"] == {"unschedulable": True}
    assert cluster.objects["node//new"]["status"]["conditions"] == [{"type": "Ready", "status": "True"}]
