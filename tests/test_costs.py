"""What deployments cost and how much of them idles: sums over event time, prices, restart, and everywhere they are shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import T0, Feed, frame, graph, links, pipeline, signals

from aiops import config
from aiops import costs as module
from aiops.cli import main
from aiops.client import Client, Denied
from aiops.costs import MAX_DEPLOYMENTS, OTHERS, UNASSIGNED, Costs, Figures
from aiops.desk import Desk, Vitals
from aiops.memory import CostMemory
from aiops.schema import Config, Prices
from aiops.sinks.metrics import MOST_DEPLOYMENTS, Metrics
from aiops.store.sqlite import Store
from aiops.types import Node, Report
from aiops.web import forms
from aiops.web.app import create_app
from aiops.web.server import Server
from aiops.yamlfile import Problems
from correlators.graph import Graph

POD = "pod/llm/chat-7d4-x"
EDGES = (f"deployment/llm/chat owns {POD}", f"service/llm/chat owns {POD}", f"{POD} uses gpu/gpu-3/0", f"{POD} uses gpu/gpu-3/1",
         "node//gpu-3 uses gpu/gpu-3/0", "node//gpu-3 uses gpu/gpu-3/1")
GPUS = ("gpu/gpu-3/0 gpu_busy_percent", "gpu/gpu-3/0 gpu_memory_used_mib", "gpu/gpu-3/1 gpu_busy_percent",
        "gpu/gpu-3/1 gpu_memory_used_mib")
SERVED = (f"{POD} requests_finished_per_second", f"{POD} prompt_tokens_per_second", f"{POD} generated_tokens_per_second")


def figures(costs: Costs, window: Any = "hour") -> dict[str, Figures]:
    return {f.deployment: f for f in costs.sums().figures(window)}


def feed(costs: Costs, keys: tuple[str, ...], rows: Any, step_s: float = 10.0, known: Graph | None = None,
         start: float = T0) -> None:
    of = signals(*keys)
    for k, row in enumerate(rows):
        costs.update(frame(start + k * step_s, row, of), known or graph(*EDGES))


def test_an_hour_of_two_gpus_at_work_and_one_that_idles() -> None:
    """One GPU works, one holds its memory and does nothing: half of the GPU-hours idle, and half of the money."""
    costs = Costs(Prices(gpuHour={"default": 2.0}))
    feed(costs, (*GPUS, *SERVED), [[80, 60000, 0, 60000, 2, 1000, 200]] * 361)
    [f] = costs.sums().figures("total")
    assert f.deployment == "deployment/llm/chat"
    assert (f.gpus, f.gpu_hours, f.idle_gpu_hours, f.idle_ratio, f.seen_hours) == pytest.approx((2, 2, 1, 0.5, 1))
    assert (f.requests, f.prompt_tokens, f.generated_tokens) == pytest.approx((7200, 3.6e6, 720_000))
    assert f.tokens_per_gpu_second == pytest.approx(100)
    assert (f.cost, f.idle_cost, f.cost_per_hour) == pytest.approx((4.0, 2.0, 4.0))
    assert f.cost_per_request == pytest.approx(4 / 7200) and f.cost_per_1k_tokens == pytest.approx(4 / 4320)


def test_columns_that_are_given_up_do_not_disturb_the_sums() -> None:
    """Columns of others move away between two steps: the sums go on as if they had stayed."""
    moved, still = Costs(), Costs()
    wide, narrow = ("pod/x/gone queue", *GPUS[:2], "pod/x/gone busy", *GPUS[2:]), GPUS
    for costs in (moved, still):
        feed(costs, wide, [[1, 80, 60000, 1, 0, 60000]] * 100)
    moved.keep(np.array([1, 2, 4, 5]))
    feed(moved, narrow, [[80, 60000, 0, 60000]] * 100, start=T0 + 1000)
    feed(still, wide, [[np.nan, 80, 60000, np.nan, 0, 60000]] * 100, start=T0 + 1000)
    assert figures(moved, "total") == figures(still, "total")


def test_a_gpu_without_held_memory_does_not_idle() -> None:
    """It is free, not wasted; where nobody knows its memory, it is taken for held."""
    costs = Costs()
    feed(costs, GPUS, [[0, 300, 0, np.nan]] * 61)
    f = figures(costs)["deployment/llm/chat"]
    assert f.gpu_hours == pytest.approx(2 / 6) and f.idle_gpu_hours == pytest.approx(1 / 6)


def test_without_prices_there_are_idle_figures_and_no_money() -> None:
    """Nothing is made up."""
    costs = Costs()
    feed(costs, (*GPUS, *SERVED), [[0, 60000, 0, 60000, 2, 1000, 200]] * 61)
    shown = costs.sums().json("hour")
    assert shown["currency"] == ""
    [f] = shown["deployments"]
    assert f["idle_ratio"] == 1.0
    assert [k for k, v in f.items() if "cost" in k and v is not None] == []


@pytest.mark.parametrize(("labels", "price"), [
    ({"gpu/gpu-3/0": {"model": "NVIDIA H100 80GB HBM3"}}, 4.1), ({"node//gpu-3": {"gpu.product": "NVIDIA-A100"}}, 1.5),
    ({"node//gpu-3": {"gpu.product": "NVIDIA-A100"}, "gpu/gpu-3/0": {"model": "NVIDIA H100 PCIe"}}, 3.9), ({}, 2.5)])
def test_a_gpu_is_priced_by_what_is_known_of_it(labels: dict[str, dict[str, str]], price: float) -> None:
    """The longest glob that fits the GPU or its machine; else the default."""
    prices = Prices(gpuHour={"default": 2.5, "NVIDIA H100*": 4.1, "NVIDIA H100 PCIe": 3.9, "*A100": 1.5})
    known = graph(*EDGES, nodes=[Node(e, labels=found) for e, found in labels.items()])
    costs = Costs(prices)
    feed(costs, GPUS[:2], [[80, 60000]] * 361, known=known)
    assert figures(costs, "total")["deployment/llm/chat"].cost == pytest.approx(price)


def test_a_gpu_shared_by_two_deployments_counts_half_in_each() -> None:
    """Time slicing: nothing is counted twice."""
    known = graph("deployment/a/x owns pod/a/x-1", "deployment/b/y owns pod/b/y-1", "pod/a/x-1 uses gpu/n/0",
                  "pod/b/y-1 uses gpu/n/0")
    costs = Costs(Prices(gpuHour=2))
    feed(costs, ("gpu/n/0 gpu_busy_percent",), [[50]] * 361, known=known)
    assert {d: (f.gpu_hours, f.cost) for d, f in figures(costs, "total").items()} == {
        "deployment/a/x": pytest.approx((0.5, 1.0)), "deployment/b/y": pytest.approx((0.5, 1.0))}


def test_gpus_that_nobody_uses_are_named_so() -> None:
    """Also where the topology does not say who uses them."""
    costs = Costs(Prices(gpuHour=2))
    feed(costs, GPUS[:1], [[0]] * 61, known=graph("node//gpu-3 uses gpu/gpu-3/0"))
    assert figures(costs)[UNASSIGNED].idle_ratio == 1.0


def test_tokens_of_a_service_and_gpus_of_its_pods_come_together() -> None:
    """Scraped through the service, without the pod's name: still the workload behind it."""
    costs = Costs(Prices(gpuHour=2))
    feed(costs, (*GPUS[:1], "service/llm/chat generated_tokens_per_second"), [[90, 100]] * 361)
    [f] = costs.sums().figures("total")
    assert (f.deployment, f.tokens_per_gpu_second) == ("deployment/llm/chat", pytest.approx(100))


def test_who_is_scraped_rarely_is_counted_in_full() -> None:
    """Ticks without a value stand for the value before; longer than five minutes nothing is taken for granted."""
    costs = Costs()
    feed(costs, GPUS[:1], [[90] if k % 6 == 0 else [np.nan] for k in range(361)])
    assert figures(costs, "total")["deployment/llm/chat"].gpu_hours == pytest.approx(1.0)
    costs = Costs()
    feed(costs, GPUS[:1], [[90], [90]], step_s=7200)
    assert figures(costs, "total")["deployment/llm/chat"].gpu_hours == pytest.approx(300 / 3600)


def test_windows_forget_and_the_total_does_not() -> None:
    """After two days at work and three hours of silence on the requests, the last hour has none."""
    costs = Costs()
    feed(costs, SERVED[:1], [[1.0]] * (48 * 12) + [[0.0]] * 36, step_s=300)
    hour, day, total = (figures(costs, w)["deployment/llm/chat"] for w in ("hour", "day", "total"))
    assert hour.requests == 0 and hour.seen_hours <= 1.01
    assert day.requests == pytest.approx(21 * 3600, rel=0.05) and 23 <= day.seen_hours <= 24.1
    assert total.requests == pytest.approx(48 * 3600, rel=0.01)
    assert len(json.dumps(costs.state())) < 20_000


def test_tokens_have_a_price_where_there_are_no_gpus() -> None:
    """Per model, as providers charge it; what a gateway says was spent is believed first."""
    keys = (f'{POD} prompt_tokens_per_second{{model="gpt-4o"}}', f'{POD} generated_tokens_per_second{{model="gpt-4o"}}',
            f'{POD} generated_tokens_per_second{{model="llama"}}')
    of = tuple(replace(s, name=s.name.partition("{")[0], labels=s.name.partition("{")[2].removesuffix("}"))
               for s in signals(*keys))
    prices = Prices(tokens={"gpt-4*": {"input": 2.5, "output": 10, "per": "1M"}})
    costs = Costs(prices)
    for k in range(361):
        costs.update(frame(T0 + 10 * k, [1000, 100, 500], of), graph(*EDGES))
    f = figures(costs, "total")["deployment/llm/chat"]
    assert f.cost == pytest.approx(3.6 * 2.5 + 0.36 * 10)
    spending = (*of, replace(of[0], id=3, name="spend_per_second"))
    for k in range(361, 721):
        costs.update(frame(T0 + 10 * k, [0, 0, 0, 0.01], spending), graph(*EDGES))
    assert figures(costs, "total")["deployment/llm/chat"].cost == pytest.approx(35.9)


def test_requests_that_are_counted_by_model_and_by_deployment_count_once() -> None:
    """Ray Serve tells of both on the same pod."""
    of = signals(SERVED[0], SERVED[0])
    of = (replace(of[0], labels='deployment="Chat"'), replace(of[1], labels='model="llama"'))
    costs = Costs()
    for k in range(61):
        costs.update(frame(T0 + 10 * k, [2.0, 2.0], of), graph(*EDGES))
    assert figures(costs)["deployment/llm/chat"].requests == pytest.approx(1200)


def test_a_pod_that_moves_takes_its_tokens_along() -> None:
    """The topology of now counts; what was added up stays where it was."""
    costs = Costs()
    feed(costs, SERVED[:1], [[1.0]] * 11)
    feed(costs, SERVED[:1], [[1.0]] * 10, known=graph(f"deployment/llm/canary owns {POD}"), start=T0 + 110)
    assert {d: f.requests for d, f in figures(costs).items()} == {
        "deployment/llm/chat": pytest.approx(100), "deployment/llm/canary": pytest.approx(100)}


def test_deployments_are_bounded() -> None:
    """Beyond a thousand the rest goes together."""
    costs = Costs()
    keys = tuple(f"service/n/s{k} requests_finished_per_second" for k in range(MAX_DEPLOYMENTS + 20))
    feed(costs, keys, [[1.0] * len(keys)] * 3)
    found = figures(costs)
    assert len(found) == MAX_DEPLOYMENTS + 1 and found[OTHERS].requests == pytest.approx(400)


def test_a_restart_goes_on_and_counts_nothing_twice() -> None:
    """Steps that were counted already are passed over; both halves together are the whole."""
    rows = [[80, 60000, 0, 60000, 2, 1000, 200]] * 200
    whole, first, second = (Costs(Prices(gpuHour=2)) for _ in range(3))
    feed(whole, (*GPUS, *SERVED), rows)
    feed(first, (*GPUS, *SERVED), rows[:100])
    second.restore(json.loads(json.dumps(first.state())))
    feed(second, (*GPUS, *SERVED), rows[90:], start=T0 + 900)
    a, b = figures(whole, "total")["deployment/llm/chat"], figures(second, "total")["deployment/llm/chat"]
    assert b.requests == pytest.approx(a.requests - 2 * 10)  # the step in between has no predecessor
    assert second.state()["at"] == whole.state()["at"]


@pytest.mark.parametrize("damage", [{}, {"quantities": ["x"]}, {"total": [[1.0]]}, {"hour": [["x", []]]}, {"at": "never"}])
def test_a_state_of_another_version_is_set_aside(damage: dict[str, Any], tmp_path: Path) -> None:
    """Said in the log, kept beside, and the sums begin anew."""
    costs = Costs()
    feed(costs, SERVED[:1], [[1.0]] * 3)
    path = tmp_path / "cost-memory.json"
    path.write_text(json.dumps({**costs.state(), **damage} if damage else [1]), encoding="utf-8")
    fresh = Costs()
    CostMemory(path, fresh)
    assert (tmp_path / "cost-memory.damaged").exists()
    assert figures(fresh) == {}


def test_the_sums_survive_the_daemon(tmp_path: Path) -> None:
    """Written every quarter of an hour and at the end."""
    costs = Costs()
    memory = CostMemory(tmp_path / "c.json", costs)
    feed(costs, SERVED[:1], [[1.0]] * 7)
    memory.publish(Report(T0))
    feed(costs, SERVED[:1], [[1.0]] * 6, start=T0 + 70)
    memory.publish(Report(T0 + 120))
    memory.close()
    later = Costs()
    CostMemory(tmp_path / "c.json", later)
    assert figures(later)["deployment/llm/chat"].requests == pytest.approx(120)


def test_costs_never_raise_anything() -> None:
    """No signal, no anomaly and no alert comes of them: the pipeline's report is the same with prices and without."""
    def run(prices: Prices) -> tuple[Any, Costs]:
        p, batches = pipeline(), Feed()
        p.costs.prices = prices
        reports = [p.step(batches.batch(T0 + 10 * k, {"gpu/gpu-3/0 DCGM_FI_DEV_GPU_UTIL": 60.0 if k < 80 else 0.0,
                                                      f'{POD} vllm:generation_tokens_total{{model="m"}}': 1000.0 * k},
                                        links=links(*EDGES) if k == 0 else None)) for k in range(160)]
        return [(r.alerts, r.incidents, r.counts.signals) for r in reports], p.costs
    cheap, costs = run(Prices())
    dear, priced = run(Prices(gpuHour=1e6))
    assert cheap == dear
    assert figures(priced, "total")["deployment/llm/chat"].cost > 1e5
    assert figures(costs, "total")["deployment/llm/chat"].idle_ratio == pytest.approx(0.5, abs=0.01)


def test_prices_of_tokens_by_the_thousand_and_the_million() -> None:
    """Written as providers write them."""
    for per, each in (("1M", 3e-6), ("1k", 3e-3), (1000, 3e-3), ("500K", 6e-6)):
        assert Prices(tokens={"m": {"input": 3, "output": 0, "per": per}}).tokens["m"].input_each == pytest.approx(each)
    for wrong in ("many", "-1k", True, "0"):
        with pytest.raises(ValueError, match="per"):
            Prices(tokens={"m": {"input": 3, "output": 0, "per": wrong}})


CONFIG = """apiVersion: aiops.io/v1
kind: Config
sources: [{host: {}}]
prices:
  currency: EUR
  gpuHour: {default: 2.5, "NVIDIA H100*": 4.1}
  tokens: {gpt-4o: {input: 3, output: 15, per: 1M}}
"""


def test_prices_come_from_the_configuration_and_survive_the_journal(tmp_path: Path) -> None:
    """A replay of a run reckons with the prices of that run."""
    path = tmp_path / "aiops.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    prices = config.load(path, {}).prices
    assert (prices.of_gpu(["NVIDIA H100 PCIe"]), prices.of_gpu([]), prices.currency_shown) == (4.1, 2.5, "EUR")
    kept = Config.model_validate(json.loads(config.load(path, {}).model_dump_json(by_alias=True))).prices
    assert kept == prices


@pytest.mark.parametrize(("wrong", "line", "said"), [
    ("default: 2.5", 6, "must be at least 0, got -1"), ("currency", 5, "unknown key. Did you mean 'currency'?"),
    ("1M", 7, "is not a number of tokens. Write for example 1M, 1k or 1000."), ("output: 15, ", 7, "output: missing")])
def test_mistakes_in_prices_are_told_with_their_line(wrong: str, line: int, said: str, tmp_path: Path) -> None:
    """Before the daemon starts."""
    path = tmp_path / "aiops.yaml"
    by = {"default: 2.5": "default: -1", "currency": "curency", "1M": "a lot", "output: 15, ": ""}
    path.write_text(CONFIG.replace(wrong, by[wrong]), encoding="utf-8")
    with pytest.raises(Problems) as e:
        config.load(path, {})
    assert f"aiops.yaml:{line}: $.prices" in str(e.value) and said in str(e.value)


# ------------------------------------------------------------------------------------------------- where they are shown
def desk(tmp_path: Path, prices: Prices) -> Desk:
    p = pipeline()
    p.costs.prices = prices
    vitals = Vitals(p)
    feed(p.costs, (*GPUS, *SERVED), [[80, 60000, 0, 60000, 2, 1000, 200]] * 361)
    vitals.publish(Report(T0 + 3600))
    return Desk(Store(tmp_path / "s.sqlite"), vitals, Metrics("1"), "observe", T0, lambda: T0, list, lambda c: None)


@contextmanager
def serving(shown: Desk) -> Iterator[str]:
    server = Server(create_app(shown), port=0)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def test_the_api_tells_costs_in_the_form_it_promises(tmp_path: Path) -> None:
    """/api/costs, by window; what is no window is told."""
    with serving(desk(tmp_path, Prices(gpuHour={"default": 2.0}, currency="EUR"))) as url:
        found = Client(url).costs("total")
        forms.Costs.model_validate(found)
        assert found["currency"] == "EUR" and found["deployments"][0]["cost_per_hour"] == pytest.approx(4.0)
        with pytest.raises(Denied, match="window"):
            Client(url).costs("year")


def test_the_command_says_who_idles_and_what_it_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table for people, the API's document for scripts."""
    with serving(desk(tmp_path, Prices(gpuHour={"default": 2.0}))) as url:
        assert main(["costs", "--server", url, "--window", "total"]) == 0
        table = capsys.readouterr().out
        assert main(["costs", "--server", url, "-o", "json"]) == 0
        document = json.loads(capsys.readouterr().out)
    assert table.splitlines()[0] == "since the beginning, in USD"
    assert "deployment/llm/chat" in table and "50%" in table and "PER 1K TOKENS" in table
    assert document["window"] == "hour" and document["deployments"][0]["idle_ratio"] == pytest.approx(0.5)


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No prices: no columns of money, and how to get them; nothing seen: a sentence instead of an empty table."""
    with serving(desk(tmp_path, Prices())) as url:
        assert main(["costs", "--server", url]) == 0
    out = capsys.readouterr().out
    assert "COST" not in out and "No prices are configured" in out
    empty = Desk(Store(tmp_path / "e.sqlite"), Vitals(pipeline()), Metrics("1"), "observe", T0, lambda: T0, list, lambda c: None)
    with serving(empty) as url:
        assert main(["costs", "--server", url]) == 0
    assert capsys.readouterr().out == "No GPUs, tokens or spending were seen in the last hour.\n"


def test_metrics_tell_costs_by_deployment_and_bounded(tmp_path: Path) -> None:
    """A hundred deployments at most; those without a price have no series of cost."""
    shown = desk(tmp_path, Prices(gpuHour=2))
    text = shown.metrics_text()
    assert 'aiops_gpu_idle_ratio{deployment="deployment/llm/chat"} 0.5' in text
    assert 'aiops_cost_per_hour{deployment="deployment/llm/chat"} 4.' in text
    metrics = Metrics("1")
    one = {**dict.fromkeys(Figures.__slots__), "idle_ratio": 0.5}
    metrics.costs([{**one, "deployment": f"d{k}"} for k in range(MOST_DEPLOYMENTS + 5)])
    assert metrics.text().count("aiops_gpu_idle_ratio{") == MOST_DEPLOYMENTS
    assert "aiops_cost_per_hour{" not in metrics.text()
    metrics.costs([])
    assert "aiops_gpu_idle_ratio{" not in metrics.text()


def test_the_names_of_the_signals_are_those_of_the_packs() -> None:
    """A renamed signal would silently cost nothing."""
    from aiops import meaning
    assert {*module.SIGNALS, module.BUSY, *module.MEMORY} <= set(meaning.shipped().signals)
