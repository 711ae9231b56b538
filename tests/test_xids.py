"""XIDs: the catalogue, the kernel's log lines, and gauges that keep the last one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from helpers import T0, Feed, alert, graph, pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops import xids
from aiops.types import Batch, Event, LogLine, Node
from aiops.xidgauges import LAST, MAX_NOTES, Xids
from correlators.correlate import Correlate
from correlators.rootcause import rank

GPU, NODE = "gpu/n/0", "node//n"


# ------------------------------------------------------------------------------------------------------ the catalogue
def test_every_documented_xid_has_a_meaning_and_an_advice() -> None:
    """1 to 172, without a gap; each advice is one that the file explains."""
    known = xids.by_number()
    assert sorted(known) == list(range(1, 173))
    assert all(x.action in xids.catalogue().actions for x in known.values())
    used = {a for x in known.values() for a in (x.action, x.then)}
    assert set(xids.catalogue().actions) <= used, "an advice that nobody gets"


@pytest.mark.parametrize(("number", "fault", "severity", "action"), [
    (13, "application", "warning", "restart_app"), (31, "application", "warning", "restart_app"),
    (43, "application", "warning", "ignore"), (45, "application", "info", "follow_others"),
    (48, "hardware", "critical", "reset_gpu"), (63, "hardware", "warning", "drain_reset"),
    (64, "hardware", "critical", "reset_gpu"), (74, "fabric", "critical", "check_fabric"),
    (79, "hardware", "critical", "restart_node"), (94, "hardware", "warning", "restart_app"),
    (95, "hardware", "critical", "reset_gpu"), (119, "driver", "critical", "reset_gpu"),
    (145, "fabric", "critical", "check_fabric"), (158, "hardware", "critical", "reset_gpu")])
def test_the_xids_that_matter_are_told_right(number: int, fault: str, severity: str, action: str) -> None:
    """By NVIDIA's catalogue: what an application does to itself is not the hardware's fault, and the other way round."""
    x = xids.by_number()[number]
    assert (x.fault, x.severity, x.action) == (fault, severity, action)


def test_an_unknown_xid_is_told_all_the_same() -> None:
    """With where to look, and no invented advice."""
    event = xids.event(T0, GPU, 9999)
    assert (event.reason, event.kind) == ("XID 9999", "warning")
    assert "not in the catalogue" in event.text and "https://docs.nvidia.com" in event.text


@pytest.mark.parametrize(("event", "fault"), [
    (xids.event(T0, GPU, 79), "hardware"), (xids.event(T0, GPU, 31), "application"), (xids.event(T0, GPU, 45), None),
    (xids.event(T0, GPU, 9999), "driver"), (Event(T0, GPU, "warning", "GPULost"), "hardware"),
    (Event(T0, GPU, "warning", "BackOff"), None), (Event(T0, GPU, "warning", "XID many"), None),
    (Event(T0, NODE, "warning", "SXID 24007"), "fabric"), (Event(T0, NODE, "normal", "SXID 28006"), None)])
def test_where_the_fault_lies(event: Event, fault: str | None) -> None:
    """None for what tells of no fault."""
    assert xids.fault(event) == fault


# ----------------------------------------------------------------------------------------------------- the kernel's log
@pytest.mark.parametrize("text", [
    "NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python3, GPU has fallen off the bus.",
    "[73309.599396] NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus",
    "Nov 21 10:00:00 n kernel: NVRM: Xid (PCI:00000000:3B:00.0): 79, pid='<unknown>', name=<unknown>",
    "NVRM: Xid (PCI:0000:3b:00): 79"])
def test_a_line_of_the_kernel_log_is_an_event(text: str) -> None:
    """With or without a prefix, a process, or words; of the GPU where its address is known, else of the node."""
    line = LogLine(T0, NODE, text)
    event = xids.of_line(line, {"0000:3b:00": GPU})
    assert event is not None and (event.time, event.entity, event.reason) == (T0, GPU, "XID 79")
    unmapped = xids.of_line(line)
    assert unmapped is not None and unmapped.entity == NODE and "3b:00" in unmapped.text.lower()


def test_a_line_names_the_instance_of_a_gpu() -> None:
    """With MIG; the addresses of a node's GPUs come with the topology of the `nvml` source."""
    nodes = (Node("node//n"), Node(GPU, labels={"pci": "0000:3b:00"}), Node("gpu/m/0", labels={"pci": "0000:3b:00"}))
    gpus = xids.by_address(nodes)
    assert gpus == {NODE: {"0000:3b:00": GPU}, "node//m": {"0000:3b:00": "gpu/m/0"}}
    line = LogLine(T0, NODE, "NVRM: Xid (PCI:0000:3b:00 GPU-I:05): 43, pid=7, name=python3, Ch 00000008")
    found = xids.of_line(line, gpus.get(line.entity)), xids.of_line(line)
    assert [(e.entity, e.reason) for e in found if e] == [("mig/n/0/5", "XID 43"), (NODE, "XID 43")]
    assert found[0] is not None and "GPU instance 5" in found[0].text


@pytest.mark.parametrize(("text", "kind", "words"), [
    ("nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 24007, Fatal, Link 28 sourcetrack timeout error (First)", "warning", "(fatal)"),
    ("nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28006, Non-fatal, Link 46 MC TS crumbstore MCTO", "normal", "(non-fatal)"),
    ("nvidia-nvswitch0: SXid (PCI:0004:00:00.0): 26008, SOE Watchdog error", "warning", "(unknown severity)")])
def test_errors_of_switches_are_events_of_their_node(text: str, kind: str, words: str) -> None:
    """Fatal or not is what the line says; where it does not say, it is a warning."""
    event = xids.of_line(LogLine(T0, NODE, text))
    assert event is not None and (event.entity, event.kind) == (NODE, kind)
    assert event.reason == f"SXID {text.split('): ')[1][:5]}" and words in event.text


@pytest.mark.parametrize("text", [
    "", "NVRM: Xid", "NVRM: Xid (PCI:0000:3b:00): many", "NVRM: Xid (PCI:0000:3b:00): 1234567, x", "SXid (PCI:zz): 12028, Fatal",
    "NVRM: GPU at PCI:0000:01:00: GPU-34d7319c", "my Xid (PCI:0000:3b:00): 79"])
def test_other_lines_are_no_events(text: str) -> None:
    """Nor are torn ones."""
    assert xids.of_line(LogLine(T0, NODE, text)) is None


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200), st.sampled_from(["", "NVRM: Xid (PCI:0000:3b:00): 79, ", "SXid (PCI:0000:c3:00.0): 24007, "]))
def test_no_line_breaks_the_reader(words: str, prefix: str) -> None:
    """What it makes of a hostile line is bounded and printable."""
    event = xids.of_line(LogLine(T0, NODE, prefix + words))
    if event is not None:
        assert len(event.text) < 700 and event.text.isprintable()


@pytest.mark.parametrize("address", ["00000000:3B:00.0", "0000:3b:00", "0000:3B:00.0", "3b:00.0"])
def test_a_pci_address_is_written_in_one_way(address: str) -> None:
    """NVML, the kernel and nvidia-smi each have their own."""
    assert xids.pci(address) == "0000:3b:00"


# ------------------------------------------------------------------------------------------------------------ the gauges
class Gauges:
    """Batches every 15 s; what the witness says of each."""

    def __init__(self) -> None:
        self.feed, self.witness, self.k = Feed(), Xids(), 0

    def tick(self, row: dict[str, float], *events: Event, at: float | None = None) -> list[tuple[str, str]]:
        self.k += 1
        batch = self.feed.batch(T0 + 15 * self.k, row, events=events)
        return [(e.entity, e.reason) for e in self.witness.observe(batch)]


KEY = f"{GPU} {LAST}"
COUNT = f'{GPU} DCGM_EXP_XID_ERRORS_COUNT{{xid="79"}}'


def test_a_change_of_the_sticky_gauge_is_an_event_with_its_onset() -> None:
    """Once, when it changes, and not as long as it stays; another number is another event."""
    g = Gauges()
    assert g.tick({KEY: 0}) == []
    assert g.tick({KEY: 79}) == [(GPU, "XID 79")]
    assert [g.tick({KEY: 79}) for _ in range(5)] == [[]] * 5
    assert g.tick({KEY: 48}) == [(GPU, "XID 48")]
    assert g.tick({KEY: 0}) == [], "the exporter began anew"
    g.k += 10
    assert g.tick({KEY: 48}) == [(GPU, "XID 48")]


def test_what_was_there_before_is_a_note_and_no_event() -> None:
    """At the start of the daemon an old XID is no news; the next one is."""
    g = Gauges()
    assert g.tick({KEY: 79}) == []
    assert g.witness.notes == (f"{GPU}: XID 79 was there before it was first looked at; since when is not known",)
    assert g.tick({KEY: 79}) == [] and g.witness.notes == ()
    assert g.tick({KEY: 94}) == [(GPU, "XID 94")]


def test_the_event_says_what_the_gauge_cannot_show() -> None:
    """The same XID again does not change the gauge."""
    g = Gauges()
    g.tick({KEY: 0})
    g.k += 1
    [event] = g.witness.observe(g.feed.batch(T0 + 15 * g.k, {KEY: 79}))
    assert event.time == T0 + 15 * g.k and "does not show" in event.text and "fallen off the bus" in event.text


def test_a_new_series_of_a_known_gpu_is_news() -> None:
    """Labels changed, and with them the value; the same value under other labels is not."""
    g = Gauges()
    g.tick({KEY: 0})
    assert g.tick({f'{KEY}{{pod="a"}}': 79}) == [(GPU, "XID 79")]
    g.k += 10
    assert g.tick({f'{KEY}{{pod="b"}}': 79}) == []


def test_repeats_are_seen_where_the_exporter_counts() -> None:
    """The count within its window rises: again. Two witnesses of one XID are one event."""
    g = Gauges()
    g.tick({KEY: 0})
    assert g.tick({KEY: 79, COUNT: 1}) == [(GPU, "XID 79")]
    assert g.tick({KEY: 79, COUNT: 1}) == []
    assert g.tick({KEY: 79, COUNT: 2}) == [(GPU, "XID 79")]
    assert g.tick({KEY: 79, COUNT: 1}) == [], "the window moves on"


def test_what_the_driver_told_is_not_told_again() -> None:
    """NVML's event and the gauge that NVML fills come in one batch."""
    g = Gauges()
    g.tick({KEY: 0})
    assert g.tick({KEY: 79}, xids.event(T0 + 30, GPU, 79)) == []
    assert g.tick({KEY: 94}) == [(GPU, "XID 94")]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.5, 1e300, 9223372036854775794.0])
def test_odd_values_are_no_xids(value: float) -> None:
    """Blank values of DCGM, and whatever else is no number of an error."""
    g = Gauges()
    g.tick({KEY: 0})
    assert g.tick({KEY: value}) == []
    g.k += 10
    assert g.tick({KEY: 79}) == [(GPU, "XID 79")]


def test_samples_of_one_batch_are_taken_in_order_and_late_ones_not_at_all() -> None:
    """A backfill brings many at once, unordered; a sample from the far future hides nothing."""
    feed, witness = Feed(), Xids()
    witness.observe(feed.batch(T0, {KEY: 0}))
    rows = [(T0 + 40, 0.0), (T0 + 20, 79.0), (T0 + 30, 79.0), (T0 + 50, 48.0), (T0 + 9e9, 13.0), (T0 - 5, 31.0)]
    batch = Batch(T0 + 60, np.zeros(6, np.int32), np.array([t for t, _ in rows]), np.array([v for _, v in rows]))
    assert [(e.time, e.reason) for e in witness.observe(batch)] == [(T0 + 20, "XID 79"), (T0 + 50, "XID 48")]


def test_over_a_restart_nothing_is_told_twice_and_nothing_is_missed() -> None:
    """The state is plain JSON; what changed meanwhile is news, what stayed is not."""
    g = Gauges()
    other = f"gpu/n/1 {LAST}"
    g.tick({KEY: 0, other: 0})
    g.tick({KEY: 79, other: 0})
    kept: dict[str, Any] = json.loads(json.dumps(g.witness.state()))
    again = Gauges()
    again.witness.restore(kept)
    again.k = 100
    assert again.witness.observe(Batch(T0 + 1499)) == ()
    assert again.tick({KEY: 79, other: 48}) == [("gpu/n/1", "XID 48")]
    assert Xids().state() == {"series": [], "known": {}, "told": {}}


def test_a_restarted_pipeline_knows_what_it_was_told() -> None:
    """Kept with all else that is learned: an XID of before the restart is neither news nor a note."""
    first, feed = pipeline(), Feed()
    for k, value in enumerate((0, 79, 79)):
        notes = first.step(feed.batch(T0 + 10 * k, {KEY: value})).notes
    assert notes == ()
    for kept, told in ((first.learned(), False), (None, True)):
        again = pipeline()
        if kept:
            again.restore(kept, T0 + 40)
        report = again.step(Feed().batch(T0 + 50, {KEY: 79}))
        assert any("XID 79 was there before" in note for note in report.notes) == told


def test_many_old_xids_are_few_notes() -> None:
    """A fleet that is looked at for the first time."""
    g = Gauges()
    assert g.tick({f"gpu/n/{k} {LAST}": 79 for k in range(500)}) == []
    assert len(g.witness.notes) == MAX_NOTES + 1 and g.witness.notes[-1] == f"and {500 - MAX_NOTES} more notes on XIDs"


# ------------------------------------------------------------------------------------------------------- as a reason
def test_a_fault_of_the_hardware_speaks_for_its_gpu() -> None:
    """It outweighs a pod that suffers louder; what an application does to itself is told and weighs nothing."""
    g = graph("pod/ml/train uses gpu/n/0")
    alerts = [alert(f"{GPU} gpu_last_xid", T0 + 5, 20), alert("pod/ml/train errors", T0, 60)]
    plain, told, app = (rank(alerts, g, [], 10.0, faults) for faults in
                        ((), [xids.event(T0, GPU, 79)], [xids.event(T0, GPU, 31)]))
    share = {name: {c.entity: c.score for c in causes} for name, causes in (("plain", plain), ("told", told), ("app", app))}
    assert told[0].entity == GPU and share["told"][GPU] > share["plain"][GPU] == share["app"][GPU]
    [reason] = [r for c in told if c.entity == GPU for r in c.reasons if "XID 79" in r.text]
    assert reason.contribution == 2.0 and "fallen off the bus" in reason.text and "restart" in reason.text
    assert [r.contribution for c in app if c.entity == GPU for r in c.reasons if "XID 31" in r.text] == [0.0]


def test_a_gpu_is_not_the_cause_of_what_an_application_did_to_it() -> None:
    """Where all that is known of it are such errors, its pod is not explained by it; more than errors, and it may be."""
    g = graph("pod/ml/train uses gpu/n/0")
    fault = [xids.event(T0, GPU, 31)]
    for resource, first in (("errors", "pod/ml/train"), ("gpu", GPU)):
        alerts = [alert(f"{GPU} gpu_last_xid", T0 + 5, 60, resource=resource), alert("pod/ml/train errors", T0, 60)]
        assert rank(alerts, g, [], 10.0, fault)[0].entity == first


@pytest.mark.parametrize("at", [T0 - 901, T0 + 61])
def test_a_fault_at_another_time_or_place_is_no_reason(at: float) -> None:
    """Long before, or clearly after the onset; or of another GPU."""
    for faults in ([xids.event(at, GPU, 79)], [xids.event(T0, "gpu/n/7", 79)]):
        assert not [r for c in rank([alert(f"{GPU} x")], graph(), [], 10.0, faults) for r in c.reasons if "XID" in r.text]


def test_of_several_faults_the_worst_leads() -> None:
    """And the others are counted."""
    faults = [xids.event(T0, GPU, 31), xids.event(T0 + 1, GPU, 95), xids.event(T0 + 2, GPU, 119)]
    [cause] = rank([alert(f"{GPU} x")], graph(), [], 10.0, faults)
    assert "XID 95" in cause.reasons[-1].text and "(and 2 other faults)" in cause.reasons[-1].text


def test_faults_reach_the_incident() -> None:
    """From the events of a step to the reasons of its incident."""
    c = Correlate()
    c.correlate(T0, [], graph(), [xids.event(T0, GPU, 79), Event(T0, GPU, "warning", "BackOff", "x")])
    [incident] = c.correlate(T0 + 10, [alert(f"{GPU} gpu_last_xid", T0 + 5)], graph(), [])
    assert [r for r in incident.causes[0].reasons if "XID 79" in r.text]
