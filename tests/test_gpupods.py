"""dcgm-exporter's labels: which GPU a series belongs to, and which pod works on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import T0
from prometheus_client.parser import text_string_to_metric_families

from aiops import meaning
from aiops.gpupods import FORGET_S, GpuPods, edge
from aiops.types import Edge

PACK = meaning.load(names=["dcgm"])
TEXT = (Path(__file__).parent / "fakes/dcgm.prom").read_text()
SCRAPE = {"job": "dcgm", "instance": "10.0.3.7:9400"}
EXPORTER = {"namespace": "gpu-operator", "pod": "nvidia-dcgm-exporter-7mqjg", "container": "nvidia-dcgm-exporter",
            "service": "dcgm"}


def samples() -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(TEXT):
        for s in family.samples:
            yield s.name.removesuffix("_total"), dict(s.labels), s.value  # the parser adds it to counters that end in _TOTAL


def series(honour: bool = False) -> Iterator[tuple[str, dict[str, str], float]]:
    """The exporter's text as Prometheus stores it. honour: `honorLabels`: the exporter's labels win over the scrape's."""
    for name, own, value in samples():
        if honour:
            yield name, {**SCRAPE, **EXPORTER, **{k: v for k, v in own.items() if v}}, value
        else:
            moved = {f"exported_{k}": v for k, v in own.items() if k in EXPORTER and v}
            yield name, {**{k: v for k, v in own.items() if k not in EXPORTER}, **moved, **SCRAPE, **EXPORTER}, value


def plain() -> Iterator[tuple[str, dict[str, str], float]]:
    """Scraped without Kubernetes discovery: only job and address are added."""
    for name, own, value in samples():
        yield name, {**{k: v for k, v in own.items() if v}, **SCRAPE}, value


@pytest.mark.parametrize("scraped", [list(series()), list(series(honour=True)), list(plain())],
                         ids=["moved", "honoured", "plain"])
def test_a_gpu_is_the_same_however_it_is_scraped(scraped: list[tuple[str, dict[str, str], float]]) -> None:
    """Same entities; of the labels only those stay that tell its series apart, and never a pod."""
    entities = {PACK.entity(name, labels)[0] for name, labels, _ in scraped}
    assert entities == {"gpu/gpu-7/0", "gpu/gpu-7/1", "gpu/gpu-7/2", "mig/gpu-7/3/7", "mig/gpu-7/3/2"}
    left = {k for name, labels, _ in scraped for k in PACK.entity(name, labels)[1]}
    assert left == {"xid"}


@pytest.mark.parametrize("scraped", [list(series()), list(plain())], ids=["moved", "plain"])
def test_pods_depend_on_the_gpu_they_work_on(scraped: list[tuple[str, dict[str, str], float]]) -> None:
    """A shared GPU has two; an instance has its own; idle ones have none, and the exporter works on nothing."""
    edges = {edge(labels, PACK.entity(name, labels)[0]) for name, labels, _ in scraped} - {None}
    assert edges == {Edge("pod/ml/train-0", "gpu/gpu-7/0", "uses"), Edge("pod/llm/vllm-0", "gpu/gpu-7/2", "uses"),
                     Edge("pod/llm/vllm-1", "gpu/gpu-7/2", "uses"), Edge("pod/lab/notebook-0", "mig/gpu-7/3/7", "uses")}


def test_idle_gpus_do_not_belong_to_the_exporter() -> None:
    """With `honorLabels`, a GPU without a pod gets the exporter's own labels from the scrape."""
    idle = [labels for name, labels, _ in series(honour=True) if labels["gpu"] == "1"]
    assert [labels["pod"] for labels in idle] == ["nvidia-dcgm-exporter-7mqjg"]
    assert [edge(labels, "gpu/gpu-7/1") for labels in idle] == [None]


@pytest.mark.parametrize(("more", "entity"), [
    ({}, "gpu/10.0.3.7:9400/0"), ({"node": "gpu-7"}, "gpu/gpu-7/0"), ({"nodeName": "gpu-7"}, "gpu/gpu-7/0"),
    ({"kubernetes_node": "gpu-7", "node": "gpu-8"}, "gpu/gpu-8/0")])
def test_the_exporters_pod_is_no_host(more: dict[str, str], entity: str) -> None:
    """An exporter that does not know its node calls itself the host, anew with each restart: node label, else address."""
    labels = {"gpu": "0", "Hostname": "nvidia-dcgm-exporter-7mqjg", "UUID": "GPU-a0", **SCRAPE, **more}
    assert PACK.entity("DCGM_FI_DEV_GPU_UTIL", labels) == (entity, {})


def test_without_anything_better_the_exporter_is_the_host() -> None:
    """Rather than no GPU at all."""
    labels = {"gpu": "0", "Hostname": "dcgm-exporter-x", "GPU_I_ID": "7"}
    assert PACK.entity("DCGM_FI_DEV_FB_USED", labels)[0] == "mig/dcgm-exporter-x/0/7"


@pytest.mark.parametrize(("labels", "entity"), [
    ({"pod": "a", "namespace": "b"}, "pod/b/a"), ({"pod": ""}, "gpu/n/0"), ({}, "gpu/n/0"), ({"exported_pod": ""}, "gpu/n/0"),
    ({"pod": "dcgm-exporter-abc"}, "gpu/n/0"), ({"pod": "x-1", "container": "dcgm-exporter"}, "gpu/n/0")])
def test_no_edge_where_no_pod_is_named(labels: dict[str, str], entity: str) -> None:
    """Or where the series is not a GPU's."""
    assert edge(labels, entity) is None


@pytest.mark.parametrize("pod", ["train-dcgm-bench-0x", "mydcgmjob-1", "vllm-0"])
def test_a_pod_is_not_taken_for_an_exporter_too_easily(pod: str) -> None:
    """Only whole words count."""
    assert bool(edge({"pod": pod, "namespace": "ml"}, "gpu/n/0")) == (pod != "train-dcgm-bench-0x")


def test_edges_are_told_when_they_change_and_forgotten_when_unseen() -> None:
    """MIG instances bring their edge to the GPU along."""
    pods = GpuPods()
    assert pods.changed(T0) is None
    pods.see(7, "DCGM_FI_DEV_FB_USED", {"exported_pod": "p", "exported_namespace": "ml"}, "mig/n/3/7", T0)
    links = pods.changed(T0)
    assert links is not None
    assert links.edges == (Edge("mig/n/3/7", "gpu/n/3", "runs_on"), Edge("pod/ml/p", "mig/n/3/7", "uses"))
    assert [n.entity for n in links.nodes] == ["gpu/n/3", "mig/n/3/7", "pod/ml/p"]
    pods.see(7, "DCGM_FI_DEV_FB_USED", {"exported_pod": "p", "exported_namespace": "ml"}, "mig/n/3/7", T0 + 60)
    pods.see(8, "DCGM_FI_DEV_GPU_TEMP", {"exported_pod": "other"}, "mig/n/3/7", T0 + 60)
    assert pods.changed(T0 + 60) is None
    assert (pods.again(T0 + 60).tolist(), pods.again(T0 + 120).tolist()) == ([7], [])
    gone = pods.changed(T0 + 61 + FORGET_S)
    assert gone is not None and gone.edges == ()
