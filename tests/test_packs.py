"""The shipped packs: consistent in themselves, and right about real exporters' series."""

from __future__ import annotations

import re

import numpy as np
import pytest

from aiops import meaning
from aiops.meaning import Meanings, Pack, Term, format_labels
from aiops.signals import Door
from aiops.types import Batch, Series

MEANINGS = meaning.shipped()
PACKS = {p.pack: p for p in MEANINGS.packs}


def rows(*samples: tuple[str, dict[str, str], float, float]) -> dict[tuple[str, str], float]:
    """Metric, labels, value now and value 10 s later -> (entity, signal) -> value in the second tick."""
    door = Door(MEANINGS)
    series = []
    for i, (metric, labels, _, _) in enumerate(samples):
        entity, rest = MEANINGS.entity(metric, labels)
        series.append(Series(i, entity, metric, format_labels(rest), MEANINGS.kind(metric)))
    ids = np.arange(len(samples), dtype=np.int32)
    for at, column in ((100.0, 2), (110.0, 3)):
        values = door.values(Batch(at, ids, np.full(len(ids), at), np.array([s[column] for s in samples], float),
                                   tuple(series) if column == 2 else ()))
    return {(s.entity, s.key): float(v) for s, v in zip(door.signals, values, strict=True)}


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
def test_a_pack_uses_exactly_what_it_declares(pack: Pack) -> None:
    """Each metric feeds a signal or is ignored on purpose; each signal is made of metrics that the pack declares."""
    used = {part.metric for rule in pack.signals.values() for way in rule.ways for part in way.parts}
    assert used <= set(pack.metrics)
    assert {m for m, rule in pack.metrics.items() if not rule.ignore} == used


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
def test_a_signal_fits_the_kinds_of_its_metrics(pack: Pack) -> None:
    """Rates and means are of counters, values of gauges; a ratio does not mix the two."""
    for name, rule in ((n, way) for n, r in pack.signals.items() for way in r.ways):
        kinds = {pack.metrics[metric].kind for metric in rule.metrics}
        gauge, counter = rule.value or rule.until, rule.rate or rule.increase or rule.mean or rule.total
        wanted = {"gauge"} if gauge else {"counter"} if counter else kinds
        assert kinds == wanted and len(kinds) == 1, name


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
def test_every_signal_has_a_smallest_effect_and_a_resource(pack: Pack) -> None:
    """Without an absolute smallest effect, noise on a quiet series is an alert."""
    for name in (*pack.signals, *pack.terms):
        assert MEANINGS.terms[name]["min_effect"].abs > 0, name
        assert MEANINGS.terms[name]["resource"], name


def test_no_name_is_defined_twice() -> None:
    """Two packs that define one metric would silently overrule one another; a signal of several packs is a common term."""
    metrics = [n for p in MEANINGS.packs for n in p.metrics]
    assert [n for n in set(metrics) if metrics.count(n) > 1] == []
    signals = [n for p in MEANINGS.packs for n in p.signals]
    assert {n for n in signals if signals.count(n) > 1} <= set(PACKS["llm"].terms)


def test_a_common_term_is_described_once() -> None:
    """The pack of an engine says how a common signal is computed there, not anew what it means; each has a definition."""
    terms = PACKS["llm"].terms
    for pack in MEANINGS.packs:
        for name in terms.keys() & pack.signals.keys():
            assert pack.signals[name].model_fields_set & Term.model_fields.keys() <= {"help"}, (pack.pack, name)
    assert set(terms) <= set(MEANINGS.definitions)


ENGINES = ("dynamo", "gen_ai", "inference_extension", "litellm", "llm", "rate_limit", "ray_serve", "sglang", "tgi", "triton",
           "vllm")


@pytest.mark.parametrize("name", ENGINES)
def test_what_serves_models_is_explained(name: str) -> None:
    """Each signal has a unit, the side that is bad, and a sentence for people; the pack says of which version it is."""
    for signal in (*PACKS[name].signals, *PACKS[name].terms):
        told = MEANINGS.terms[signal]
        assert told["unit"] and told["direction"] in ("up", "down", "both"), signal
        assert told.get("help"), signal
    assert name in ("llm", "rate_limit") or re.search(r"documented for|\(1\.37\)", PACKS[name].help)


def test_regular_expressions_leave_out_what_they_should() -> None:
    """`where` matches from end to end: loopback is left out, a device that only begins like it is not."""
    nic = MEANINGS.signals["node_network_receive_bytes_per_second"].parts[0]
    names = ("lo", "veth12", "eth0", "lo0x", "ens5", "cali1")
    assert [d for d in names if nic.matches({"device": d})] == ["eth0", "lo0x", "ens5"]
    disk = MEANINGS.signals["node_disk_busy_ratio"].parts[0]
    assert [d for d in ("sda", "nvme0n1", "loop3", "sr0", "dm-0") if disk.matches({"device": d})] == ["sda", "nvme0n1"]


def test_node_cpu_is_the_share_of_all_modes() -> None:
    """3 busy of 10 seconds: 30 %, whatever mode the work was in; waiting for a disk is not work."""
    node = {"instance": "a:9100", "job": "node"}
    out = rows(*(("node_cpu_seconds_total", {**node, "cpu": "0", "mode": mode}, 100.0, 100.0 + spent)
                 for mode, spent in (("user", 2.0), ("system", 1.0), ("idle", 5.0), ("iowait", 2.0))))
    assert out["node//a:9100", "node_cpu_busy_ratio"] == pytest.approx(0.3)
    assert out["node//a:9100", "node_cpu_iowait_ratio"] == pytest.approx(0.2)


def test_node_memory_and_disk_are_shares_in_use() -> None:
    """Inverted ratios: 6 of 8 GB available is 25 % used; each mount point on its own, temporary ones left out."""
    node = {"instance": "a:9100"}
    disk = {**node, "device": "/dev/sda1", "fstype": "ext4", "mountpoint": "/"}
    tmp = {**node, "device": "tmpfs", "fstype": "tmpfs", "mountpoint": "/run"}
    out = rows(("node_memory_MemAvailable_bytes", node, 6e9, 6e9), ("node_memory_MemTotal_bytes", node, 8e9, 8e9),
               ("node_filesystem_avail_bytes", disk, 1e9, 1e9), ("node_filesystem_size_bytes", disk, 4e9, 4e9),
               ("node_filesystem_avail_bytes", tmp, 0, 0), ("node_filesystem_size_bytes", tmp, 1e9, 1e9))
    assert out["node//a:9100", "node_memory_used_ratio"] == pytest.approx(0.25)
    assert out["node//a:9100", 'node_filesystem_used_ratio{mountpoint="/"}'] == pytest.approx(0.75)
    assert not any("/run" in signal for _, signal in out)


def test_a_node_label_from_kubernetes_wins_over_the_address() -> None:
    """So that node-exporter, kubelet and topology speak of the same node."""
    labels = {"node": "gpu-3", "instance": "10.0.0.7:9100", "pod": "node-exporter-x", "namespace": "monitoring"}
    assert MEANINGS.entity("node_load1", labels) == ("node//gpu-3", {})


def test_container_memory_counts_a_pod_once() -> None:
    """cAdvisor writes the containers, the pod and the pause container; the pod's own figure is the largest."""
    pod = {"namespace": "shop", "pod": "api-1"}
    out = rows(*(("container_memory_usage_bytes", {**pod, "container": c, "id": f"/{c}"}, v, v)
                 for c, v in (("api", 300e6), ("sidecar", 100e6), ("", 401e6), ("POD", 900e6))))
    assert out["pod/shop/api-1", "container_memory_usage_bytes"] == 401e6


def test_container_memory_works_without_a_container_label() -> None:
    """A recording, or a relabelled scrape, may know only the pod."""
    pod = {"namespace": "shop", "pod": "api-1"}
    assert rows(("container_memory_usage_bytes", pod, 5.0, 7.0))["pod/shop/api-1", "container_memory_usage_bytes"] == 7.0


def test_restarts_are_an_increase_over_the_containers_of_a_pod() -> None:
    """Two restarts in this tick, and nothing of the hundred before."""
    pod = {"namespace": "shop", "pod": "api-1"}
    out = rows(("kube_pod_container_status_restarts_total", {**pod, "container": "a"}, 100.0, 101.0),
               ("kube_pod_container_status_restarts_total", {**pod, "container": "b"}, 0.0, 1.0))
    assert out["pod/shop/api-1", "container_restarts"] == 2.0
    assert PACKS["kubernetes"].signals["container_restarts"].increase


def test_kube_state_metrics_belong_to_their_object_and_not_to_the_exporter() -> None:
    """The exporter's own pod and namespace labels do not win over the deployment."""
    labels = {"namespace": "shop", "deployment": "api", "job": "kube-state-metrics", "instance": "x", "pod": "ksm-1"}
    assert MEANINGS.entity("kube_deployment_spec_replicas", labels) == ("deployment/shop/api", {})
    out = rows(("kube_deployment_spec_replicas", labels, 4, 4), ("kube_deployment_status_replicas_available", labels, 4, 3))
    assert out["deployment/shop/api", "deployment_available_ratio"] == 0.75


def test_gpus_have_one_name_in_old_and_new_exporters() -> None:
    """`Hostname` in older releases, `hostname` in newer ones; the device's serial data is no part of the name."""
    more = {"gpu": "3", "UUID": "GPU-1", "device": "nvidia3", "modelName": "NVIDIA H200", "job": "dcgm"}
    for key in ("Hostname", "hostname"):
        assert MEANINGS.entity("DCGM_FI_DEV_GPU_UTIL", {key: "gpu-7", **more}) == ("gpu/gpu-7/3", {})


def test_the_last_xid_is_a_value_and_never_a_rate() -> None:
    """DCGM_FI_DEV_XID_ERRORS holds the number of the last XID."""
    gpu = {"hostname": "gpu-7", "gpu": "0"}
    assert rows(("DCGM_FI_DEV_XID_ERRORS", gpu, 0, 79))["gpu/gpu-7/0", "gpu_last_xid"] == 79


def test_time_to_first_token_is_the_mean_of_the_tick() -> None:
    """3 answers in 1.5 s altogether: half a second, whatever happened before."""
    pod = {"namespace": "llm", "pod": "vllm-0", "model_name": "m", "engine": "0"}
    out = rows(("vllm:time_to_first_token_seconds_sum", pod, 1000.0, 1001.5),
               ("vllm:time_to_first_token_seconds_count", pod, 10.0, 13.0))
    assert out["pod/llm/vllm-0", 'time_to_first_token{model="m"}'] == pytest.approx(0.5)


def test_replicas_of_a_service_do_not_share_one_series() -> None:
    """Two instances of one job count separately, and add up in the signal."""
    out = rows(("http_requests_total", {"job": "api", "instance": "a:1", "code": "200"}, 0, 100),
               ("http_requests_total", {"job": "api", "instance": "b:1", "code": "200"}, 5000, 5300),
               ("http_requests_total", {"job": "api", "instance": "b:1", "code": "503"}, 0, 100))
    assert out["service//api", "http_requests_per_second"] == pytest.approx(50.0)
    assert out["service//api", "http_error_rate"] == pytest.approx(0.2)
    entities = {format_labels(MEANINGS.entity("up", {"job": "api", "instance": i})[1]) for i in "ab"}
    assert len(entities) == 2


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
def test_what_is_a_share_of_a_capacity_runs_out_at_one(pack: Pack) -> None:
    """Whatever has a limit has one side from which it is reached, and room on the other."""
    for name, rule in pack.signals.items():
        if rule.limit:
            assert rule.direction in ("up", "down"), name
            assert rule.limit.at == {"ratio": 1, "seconds": 0, "rows": 512}[rule.unit], name
            assert 600 <= rule.limit.horizon_s <= 7 * 86_400, name


def test_the_resources_that_run_out_are_known() -> None:
    """Disks, inodes, memory, caches, handles, quotas, spare rows, certificates."""
    limited = {name for name, rule in MEANINGS.signals.items() if rule.limit}
    assert limited == {
        "node_filesystem_used_ratio", "node_filesystem_inodes_used_ratio", "volume_used_ratio", "volume_inodes_used_ratio",
        "node_memory_used_ratio", "container_memory_limit_ratio", "gpu_memory_used_ratio", "gpu_memory_used_share",
        "kv_cache_used_ratio",
        "team_budget_used_ratio", "node_open_files_ratio", "process_open_fds_ratio", "node_conntrack_used_ratio",
        "quota_used_ratio", "gpu_remapped_rows", "probed_certificate_left_seconds", "certificate_left_seconds"}


def test_certificates_count_down() -> None:
    """Seconds from the tick to the first to expire, whoever tells of it; each cert-manager certificate is its own entity."""
    probe = {"job": "blackbox", "instance": "https://shop.example"}
    ours = {"name": "shop-tls", "exported_namespace": "shop", "namespace": "cert-manager", "issuer_name": "le", "pod": "cm-1"}
    out = rows(("probe_ssl_earliest_cert_expiry", probe, 5000.0, 5000.0),
               ("probe_ssl_earliest_cert_expiry", {**probe, "prober": "b"}, 4000.0, 4000.0),
               ("certmanager_certificate_expiration_timestamp_seconds", ours, 9000.0, 9000.0))
    assert out["certificate//https://shop.example", "probed_certificate_left_seconds"] == 4000 - 110
    assert out["certificate/shop/shop-tls", "certificate_left_seconds"] == 9000 - 110


def test_quotas_are_shares_of_each_resource() -> None:
    """A quota of 0 says nothing; the namespace's object carries the figure, not the exporter."""
    quota = {"namespace": "shop", "resourcequota": "compute", "job": "kube-state-metrics", "instance": "x", "pod": "ksm-1"}
    said = (("requests.cpu", "hard", 8), ("requests.cpu", "used", 6), ("pods", "hard", 0), ("pods", "used", 0))
    out = rows(*(("kube_resourcequota", {**quota, "resource": r, "type": t}, v, v) for r, t, v in said))
    assert out["resourcequota/shop/compute", 'quota_used_ratio{resource="requests.cpu"}'] == 0.75
    assert np.isnan(out["resourcequota/shop/compute", 'quota_used_ratio{resource="pods"}'])


def test_volumes_run_out_of_bytes_and_of_inodes() -> None:
    """By claim, as the kubelet tells."""
    claim = {"namespace": "shop", "persistentvolumeclaim": "data-db-0", "node": "a", "job": "kubelet"}
    told = {"available_bytes": 1e9, "capacity_bytes": 4e9, "inodes_used": 90, "inodes": 100}
    out = rows(*((f"kubelet_volume_stats_{name}", claim, v, v) for name, v in told.items()))
    assert out["persistentvolumeclaim/shop/data-db-0", "volume_used_ratio"] == 0.75
    assert out["persistentvolumeclaim/shop/data-db-0", "volume_inodes_used_ratio"] == 0.9


def test_spare_rows_are_counted_since_the_gpu_was_made() -> None:
    """The increase of the tick is one signal, what is used up another."""
    gpu = {"hostname": "gpu-7", "gpu": "0"}
    out = rows(("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", gpu, 17, 18))
    assert out["gpu/gpu-7/0", "gpu_remapped_rows"] == 18
    assert out["gpu/gpu-7/0", "gpu_uncorrectable_remapped_rows"] == 1


def test_file_descriptors_are_a_share_of_what_the_process_may_have() -> None:
    """And a count, as before."""
    process = {"job": "api", "instance": "a:1"}
    out = rows(("process_open_fds", process, 512, 768), ("process_max_fds", process, 1024, 1024))
    assert out["service//api", "process_open_fds_ratio"] == 0.75
    assert out["service//api", "process_open_fds"] == 768


def test_the_names_that_policies_use_exist() -> None:
    """DESIGN 5.5: what the reference policy and the docs refer to."""
    for name in ("container_memory_usage_bytes", "container_restarts", "http_error_rate", "time_to_first_token"):
        assert name in MEANINGS.signals


def test_selectors_of_a_pack_hold_only_what_is_watched() -> None:
    """`metric_names` is what is asked of Prometheus: no boot times, no buckets."""
    names = Meanings(MEANINGS.packs).metric_names(["node", "service"])
    assert "node_load1" in names
    assert not [n for n in names if re.search("bucket|boot_time|DCGM", n)]
