"""Engines and gateways as they write their metrics: the same names and units come out whoever serves the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from aiops import meaning
from aiops.meaning import format_labels
from aiops.signals import Door
from aiops.types import Batch, Series

FOLDER = Path(__file__).parent / "expositions"
MEANINGS = meaning.shipped()
POD = {"namespace": "llm", "pod": "p-0", "job": "serving", "instance": "10.0.0.7:8000", "container": "main"}
Samples = dict[tuple[str, str], float]


class Scrapes:
    """What a Prometheus would have stored, through entity rules and the door."""

    def __init__(self) -> None:
        self.door = Door(MEANINGS)
        self.ids: dict[tuple[str, str, str], int] = {}

    def scrape(self, at: float, text: str, target: dict[str, str]) -> Samples:
        """One scrape of one target: (entity, signal) -> value."""
        new, rows = [], []
        for family in text_string_to_metric_families(text.replace("# TYPE", "#")):  # with types it would add _total to names
            for sample in family.samples:
                entity, rest = MEANINGS.entity(sample.name, {**target, **sample.labels})
                key = (entity, sample.name, format_labels(rest))
                if key not in self.ids:
                    self.ids[key] = len(self.ids)
                    new.append(Series(self.ids[key], *key, MEANINGS.kind(sample.name)))
                rows.append((self.ids[key], sample.value))
        assert len({i for i, _ in rows}) == len(rows), "two series became one"
        values = self.door.values(Batch(at, np.array([i for i, _ in rows], np.int32), np.full(len(rows), at),
                                        np.array([v for _, v in rows]), tuple(new)))
        return {(s.entity, s.key): float(v) for s, v in zip(self.door.signals, values, strict=True)}


def second(name: str, target: dict[str, str] | None = None) -> tuple[Samples, Scrapes]:
    """The signals of the second scrape in a file."""
    before, after = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").split("--- 10 s later\n")
    scrapes = Scrapes()
    scrapes.scrape(100.0, before, target or POD)
    return scrapes.scrape(110.0, after, target or POD), scrapes


LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
EXPECTED: dict[str, tuple[str, dict[str, float]]] = {
    "vllm-v1": (LLAMA, {
        "time_to_first_token": 2.0, "inter_token_latency": 0.03, "request_latency": 6.0, "queue_time": 1.5,
        "requests_running": 32, "requests_waiting": 17, "kv_cache_used_ratio": 0.97, "prefix_cache_hit_ratio": 0.25,
        "preemptions": 7, "prompt_tokens_per_second": 500, "generated_tokens_per_second": 300,
        "requests_finished_per_second": 2.0, "request_error_rate": 0.05, "aborted_request_ratio": 0.1,
        "truncated_request_ratio": 0.2, "spec_decode_acceptance_ratio": 0.75, "time_per_output_token": 0.025}),
    "vllm-v0": ("facebook/opt-125m", {
        "time_per_output_token": 0.03, "requests_running": 4, "requests_waiting": 2, "kv_cache_used_ratio": 0.5,
        "prompt_tokens_per_second": 50, "generated_tokens_per_second": 100, "spec_decode_acceptance_ratio": 0.7}),
    "sglang": ("Qwen/Qwen3-0.6B", {
        "time_to_first_token": 0.5, "queue_time": 0.3, "requests_running": 16, "requests_waiting": 7,
        "kv_cache_used_ratio": 0.9, "prefix_cache_hit_ratio": 0.25, "preemptions": 3, "prompt_tokens_per_second": 100,
        "generated_tokens_per_second": 100, "requests_finished_per_second": 1.0, "request_error_rate": 0.1}),
    "tgi": ("", {
        "time_per_output_token": 0.05, "request_latency": 3.0, "queue_time": 0.5, "requests_running": 32,
        "requests_waiting": 12, "generated_tokens_per_second": 300, "prompt_tokens_per_second": 2000,
        "requests_finished_per_second": 3.0, "request_error_rate": 0.25, "rate_limited_requests": 8}),
    "triton": ("bert", {
        "request_latency": 0.5, "queue_time": 0.2, "compute_time": 0.1, "requests_waiting": 9,
        "requests_finished_per_second": 1.8, "request_error_rate": 0.1, "inferences_per_batch": 4.0,
        "response_cache_hit_ratio": 0.3}),
    "litellm": ("gpt-4o", {
        "request_latency": 2.0, "time_to_first_token": 0.5, "requests_finished_per_second": 10.0, "request_error_rate": 0.4,
        "rate_limited_requests": 40, "rate_limited_ratio": 0.4, "spend_per_second": 0.05, "prompt_tokens_per_second": 500,
        "generated_tokens_per_second": 200, "fallbacks": 12}),
    "gen-ai": ("qwen2.5:0.5b", {
        "time_to_first_token": 0.4, "request_latency": 2.0, "requests_finished_per_second": 2.0, "request_error_rate": 0.25,
        "rate_limited_requests": 5, "prompt_tokens_per_second": 200, "generated_tokens_per_second": 50}),
    "dynamo": ("qwen", {
        "time_to_first_token": 0.8, "requests_running": 10, "requests_waiting": 7, "generated_tokens_per_second": 200,
        "requests_finished_per_second": 2.0, "request_error_rate": 0.25}),
    "inference-extension": ("food-review", {
        "request_latency": 2.0, "requests_finished_per_second": 2.0, "request_error_rate": 0.25,
        "generated_tokens_per_second": 100}),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_engine_speaks_the_common_language(name: str) -> None:
    """Every figure under its common name and in its unit, on the pod, kept apart by model."""
    model, expected = EXPECTED[name]
    out, scrapes = second(name)
    found = {signal: out["pod/llm/p-0", signal + (f'{{model="{model}"}}' if model else "")] for signal in expected}
    assert found == pytest.approx(expected)
    assert not [s.key for s in scrapes.door.signals if ":" in s.name or s.name.startswith(("nv_", "tgi_", "litellm_"))]


def test_every_file_is_read_by_a_test() -> None:
    """An exposition that nobody reads proves nothing."""
    assert {p.stem for p in FOLDER.glob("*.txt")} == {*EXPECTED, "ray-serve", "rate-limit"}


def test_parameters_of_requests_are_left_out() -> None:
    """What was asked for (best_of, max_tokens) and what an engine was built with is not how it does."""
    for name in ("vllm-v0", "vllm-v1"):
        _, scrapes = second(name)
        told = " ".join(s.key for s in scrapes.door.signals)
        assert not [word for word in ("params", "lora", "config", "swapped", "hit_rate") if word in told]


def test_tritons_view_of_gpus_is_left_to_dcgm() -> None:
    """One GPU, one figure; and TensorRT-LLM's own queue and cache count."""
    out, scrapes = second("triton")
    assert not [s.key for s in scrapes.door.signals if "gpu" in s.key]
    assert out["pod/llm/p-0", 'kv_cache_used_ratio{model="tensorrt_llm"}'] == 0.95
    assert out["pod/llm/p-0", 'requests_running{model="tensorrt_llm"}'] == 4
    assert out["pod/llm/p-0", 'requests_waiting{model="tensorrt_llm"}'] == 3
    assert out["pod/llm/p-0", 'failed_requests{model="bert",reason="REJECTED"}'] == 2


def test_ray_serve_tells_of_deployments_and_of_vllm_in_them() -> None:
    """Milliseconds become seconds, a counter that is written under two names counts once."""
    out, scrapes = second("ray-serve")
    chat = {signal: out["pod/llm/p-0", f'{signal}{{deployment="Chat"}}'] for signal in (
        "request_latency", "requests_finished_per_second", "request_error_rate", "requests_waiting", "requests_running",
        "replicas_wanted", "replicas_wanted_ratio")}
    assert chat == pytest.approx({
        "request_latency": 2.5, "requests_finished_per_second": 5.0, "request_error_rate": 0.2, "requests_waiting": 21,
        "requests_running": 5, "replicas_wanted": 4, "replicas_wanted_ratio": 2.0})
    llama = {signal: out["pod/llm/p-0", f'{signal}{{model="llama"}}'] for signal in (
        "time_to_first_token", "requests_waiting", "kv_cache_used_ratio", "generated_tokens_per_second")}
    assert llama == pytest.approx({"time_to_first_token": 0.5, "requests_waiting": 9, "kv_cache_used_ratio": 0.8,
                                   "generated_tokens_per_second": 200})
    assert out["pod/llm/p-0", "dead_actors"] == 1
    assert scrapes.door.dropped["defined_otherwise"] == 2


def test_a_gateway_tells_what_is_left_and_who_is_out() -> None:
    """What LiteLLM knows of providers and budgets: each under the model or team that it is about."""
    out, _ = second("litellm")
    told = {signal: out["pod/llm/p-0", signal] for signal in (
        'provider_outage{model="azure/gpt-4o"}', 'provider_requests_left{model="azure/gpt-4o"}',
        'cooled_down_deployments{model="azure/gpt-4o"}', 'team_budget_used_ratio{team_alias="search"}')}
    assert list(told.values()) == pytest.approx([1, 0, 1, 0.95])


def test_rate_limits_of_gateways_are_kept_apart() -> None:
    """Envoy's local limit, what its rate limit service said to a cluster, and the service's own domain."""
    out, _ = second("rate-limit")
    assert {key: v for (_, key), v in out.items() if key.startswith("rate_limited")} == pytest.approx({
        "rate_limited_requests": 10, "rate_limited_ratio": 0.1,
        'rate_limited_requests{envoy_cluster_name="llm"}': 30, 'rate_limited_ratio{envoy_cluster_name="llm"}': 0.5,
        'rate_limited_requests{domain="llm"}': 60, 'rate_limited_ratio{domain="llm"}': 0.6})


def test_a_pool_of_the_inference_gateway_is_its_own_entity() -> None:
    """What is true of the pool is not blamed on the pod that says it."""
    out, _ = second("inference-extension")
    pool = {key: v for (entity, key), v in out.items() if entity == "inferencepool/llm/vllm-llama3"}
    assert pool == pytest.approx({"kv_cache_used_ratio": 0.9, "requests_waiting": 8, "ready_pods": 2})


def test_outside_a_cluster_the_job_is_the_service() -> None:
    """Without pod and namespace the figures of all instances of a job come together."""
    out, _ = second("tgi", {"job": "chat", "instance": "a:80"})
    assert out["service//chat", "requests_waiting"] == 12


def test_an_engine_may_rename_a_metric_in_an_upgrade() -> None:
    """The same pod goes on under the new name: the column goes on, and counts nothing twice in between."""
    scrapes = Scrapes()
    for k in range(3):
        out = scrapes.scrape(100.0 + 10 * k, f'vllm:gpu_cache_usage_perc{{model_name="m"}} 0.{k + 1}\n', POD)
    assert out["pod/llm/p-0", 'kv_cache_used_ratio{model="m"}'] == 0.3
    for k in range(12):
        out = scrapes.scrape(130.0 + 10 * k, f'vllm:kv_cache_usage_perc{{model_name="m"}} 0.{k % 5 + 1}\n', POD)
    assert out["pod/llm/p-0", 'kv_cache_used_ratio{model="m"}'] == 0.2
    assert len(scrapes.door.signals) == 1
