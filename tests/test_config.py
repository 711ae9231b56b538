"""The configuration: the contract of the design, precedence of the layers, and every error at its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiops import build, config, schema
from aiops.layered import Layers
from aiops.quantities import format_bytes, format_duration, parse_bytes, parse_duration
from aiops.yamlfile import Problems

CONTRACT = """\
apiVersion: aiops.io/v1
kind: Config
mode: observe                      # observe | ask | act: the most that any policy may do
budget: {incidents: 1, per: 1d}    # false incidents accepted, over all series
sources:
  - prometheus: {url: "http://prometheus:9090", packs: [node, kubernetes, dcgm, vllm], interval: 15s, backfill: 14d}
  - remote_write: {}
  - kubernetes: {events: true, logs: {selector: "app in (api, gateway)"}}
  - host: {}
topology: {kubernetes: true, calls: true, file: topology.yaml}
detectors: [baseline, isolation_forest, peers, logs, absence, exhaustion]
policies: policies/
sinks:
  - slack: {tokenFile: /etc/aiops/slack-token, channel: "#incidents"}
  - webhook: {url: "https://hooks.example/aiops", secretFile: /etc/aiops/hook-secret}
store: /var/lib/aiops              # SQLite, journal, capsules, detector state
listen: 127.0.0.1:8750
"""
REMARKS: list[str] = []
ALL = ("absence", "baseline", "drift", "exhaustion", "isolation_forest", "logs", "peers")


@pytest.fixture(autouse=True)
def detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """All detectors of the contract, whichever this version has."""
    monkeypatch.setattr(schema, "detector_names", lambda: ALL)


def file(folder: Path, text: str) -> Path:
    path = folder / "aiops.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def errors(path: Path | None, env: dict[str, str] | None = None, **flags: object) -> list[str]:
    with pytest.raises(Problems) as caught:
        config.load(path, env or {}, flags)
    return [str(p).replace(str(path), "aiops.yaml") for p in caught.value.problems]


def test_the_document_of_the_design_loads(tmp_path: Path) -> None:
    """Section 5.6, word for word."""
    loaded = config.load(file(tmp_path, CONTRACT), {})
    assert [s.kind for s in loaded.sources] == ["prometheus", "remote_write", "kubernetes", "host"]
    prometheus = loaded.source("prometheus")
    assert (prometheus.url, prometheus.interval_s, prometheus.backfill_s) == ("http://prometheus:9090", 15.0, 14 * 86400.0)
    assert prometheus.packs == ["node", "kubernetes", "dcgm", "vllm"]
    assert loaded.source("kubernetes").logs.selector == "app in (api, gateway)"
    assert loaded.budget.per_day == 1.0
    assert loaded.detectors == ["baseline", "isolation_forest", "peers", "logs", "absence", "exhaustion"]
    assert (loaded.policies.folder, loaded.topology.file) == (tmp_path / "policies", tmp_path / "topology.yaml")
    assert [s.kind for s in loaded.sinks] == ["slack", "webhook"]
    assert str(loaded.sinks[0].settings.token_file) == "/etc/aiops/slack-token"
    assert (str(loaded.store), loaded.listen, loaded.mode) == ("/var/lib/aiops", "127.0.0.1:8750", "observe")


def test_detectors_may_have_settings(tmp_path: Path) -> None:
    """Beside plain names; also from the environment; and what was read can be written and read again."""
    text = "detectors:\n  - baseline\n  - isolation_forest: {trees: 64, refit: 12h}\n  - logs:\n"
    loaded = config.load(file(tmp_path, text), {})
    assert schema.available(loaded.detectors) == ["baseline", "isolation_forest", "logs"]
    assert [dict(schema.detector_settings(d)) for d in loaded.detectors] == [{}, {"trees": 64, "refit": "12h"}, {}]
    again = config.Config.model_validate_json(loaded.model_dump_json(by_alias=True))
    assert again.detectors == loaded.detectors
    env = {"AIOPS_DETECTORS": "[baseline, {isolation_forest: {trees: 64}}]"}
    assert config.load(None, env).detectors == ["baseline", {"isolation_forest": {"trees": 64}}]


def test_settings_of_detectors_are_told_together_with_everything_else(tmp_path: Path) -> None:
    """One round of mending, not two."""
    text = "mode: observ\ndetectors:\n  - isolation_forest: {trees: 2}\n  - baseline: {timezone: Europe/Berln}\n"
    assert [line.split(": ")[1] for line in errors(file(tmp_path, text))] == [
        "$.mode", "$.detectors[0].isolation_forest.trees", "$.detectors[1].baseline.timezone"]


def notes(path: Path) -> list[str]:
    return [str(p).replace(str(path), "aiops.yaml") for p in config.read(path, {}).notes]


def test_what_the_design_names_and_this_version_lacks_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that loads and does nothing would mislead; one for each, and silence about everything else."""
    monkeypatch.setattr(schema, "detector_names", lambda: tuple(n for n in ALL if n not in schema.PLANNED))
    assert notes(file(tmp_path, CONTRACT)) == REMARKS
    assert schema.available(config.load(file(tmp_path, CONTRACT), {}).detectors) == [
        "baseline", "isolation_forest", "peers", "logs", "absence", "exhaustion"]


@pytest.mark.parametrize(("text", "remarks"), [
    ("mode: observe", []),
    ("mode: ask", ["aiops.yaml:1: $.mode: 'ask', but there is no kubernetes source: decisions are shown and nothing is "
                   "carried out."]),
    ("mode: act\nsources:\n  - kubernetes", []),
    ("topology: {kubernetes: true}", ["aiops.yaml:1: $.topology.kubernetes: there is no kubernetes source to take the "
                                      "topology from. Add one."]),
    ("topology: {kubernetes: false}", []),
])
def test_settings_that_need_something_else_say_so(tmp_path: Path, text: str, remarks: list[str]) -> None:
    """What was written down and cannot work without a source that is not there; defaults say nothing."""
    assert notes(file(tmp_path, text + "\n")) == remarks


def test_flags_beat_environment_beats_file_beats_default(tmp_path: Path) -> None:
    """Each layer gives way to the one above it, key by key inside maps."""
    path = file(tmp_path, "mode: ask\nbudget: {incidents: 2, per: 7d}\nlisten: 127.0.0.1:1\n")
    env = {"AIOPS_LISTEN": "127.0.0.1:2", "AIOPS_BUDGET__INCIDENTS": "3"}
    loaded = config.load(path, env, {"listen": "127.0.0.1:3", "mode": None})
    assert (loaded.mode, loaded.listen, loaded.journal.keep_s) == ("ask", "127.0.0.1:3", 7 * 86400.0)
    assert (loaded.budget.incidents, loaded.budget.per_s) == (3.0, 7 * 86400.0)
    assert config.load(path, env).listen == "127.0.0.1:2"


def test_environment_writes_lists_and_camel_case_keys(tmp_path: Path) -> None:
    """Lists as YAML or with commas; names match without case and underscores."""
    env = {"AIOPS_DETECTORS": "logs, baseline", "AIOPS_TOKEN_FILE": "/t", "AIOPS_JOURNAL__MAX_BYTES": "3MiB",
           "AIOPS_SOURCES": '[{prometheus: {url: "http://p:9090"}}, host]'}
    loaded = config.load(None, env)
    assert (loaded.detectors, str(loaded.token_file), loaded.journal.max_bytes) == (["logs", "baseline"], "/t", 3 * 2**20)
    assert [s.kind for s in loaded.sources] == ["prometheus", "host"]


def test_variables_that_kubernetes_sets_for_a_service_called_aiops_are_left_alone() -> None:
    """`AIOPS_PORT=tcp://…` is put into every pod of the namespace and is no setting."""
    env = {"AIOPS_PORT": "tcp://10.0.0.1:8750", "AIOPS_SERVICE_HOST": "10.0.0.1", "AIOPS_SERVICE_PORT_HTTP": "8750",
           "AIOPS_PORT_8750_TCP_ADDR": "10.0.0.1", "AIOPS_SERVER": "http://x", "AIOPS_TOKEN": "secret"}
    assert config.load(None, env) == config.load(None, {})


@pytest.mark.parametrize(("env", "kinds"), [
    ({}, ["host"]),
    ({"PROMETHEUS_URL": "http://p:9090"}, ["prometheus"]),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ["kubernetes"]),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "PROMETHEUS_URL": "http://p:9090"}, ["kubernetes", "prometheus"]),
])
def test_without_a_configuration_it_watches_what_is_there(env: dict[str, str], kinds: list[str]) -> None:
    """In a cluster the cluster, else PROMETHEUS_URL, else this host."""
    found = config.default_for(env)
    assert [s.kind for s in found.sources if s.kind != "nvml"] == kinds
    assert found.mode == "observe"
    assert found.tick_s == (2.0 if kinds == ["host"] else 15.0)


def test_state_goes_to_the_user_outside_of_a_cluster() -> None:
    """`make run` must work without root; in a pod the volume is used."""
    assert str(config.default_for({"HOME": "/h"}).store) == "/h/.local/state/aiops"
    assert str(config.default_for({"HOME": "/h", "XDG_STATE_HOME": "/x"}).store) == "/x/aiops"
    assert str(config.default_for({"HOME": "/h", "KUBERNETES_SERVICE_HOST": "1"}).store) == "/var/lib/aiops"


@pytest.mark.parametrize(("text", "message"), [
    ("mod: ask", "aiops.yaml:1: $.mod: unknown key. Did you mean 'mode'?"),
    ("kind: Config\nbudget:\n  incident: 1", "aiops.yaml:3: $.budget.incident: unknown key. Did you mean 'incidents'?"),
    ("mode: on", "aiops.yaml:1: $.mode: must be 'observe', 'ask' or 'act', got 'on'."),
    ("mode: ask\nmode: act", 'aiops.yaml:2: found duplicate key "mode". Remove one of the two.'),
    ("budget: {per: 5}",
     "aiops.yaml:1: $.budget.per: 5 is not a duration. It has no unit. Write for example 15s, 1h30m or 14d."),
    ("budget: {incidents: 0}", "aiops.yaml:1: $.budget.incidents: must be more than 0, got 0."),
    ("journal:\n  maxBytes: lots",
     "aiops.yaml:2: $.journal.maxBytes: 'lots' is not a size. Write for example 512MiB or 2GiB."),
    ("sources: []", "aiops.yaml:1: $.sources: must not be empty."),
    ("sources:\n  - prometheus: {}", "aiops.yaml:2: $.sources[0].prometheus.url: missing, and there is no default. Add it."),
    ("sources:\n  - prometheus: {url: prometheus}",
     "aiops.yaml:2: $.sources[0].prometheus.url: 'prometheus' is not a URL. Write it like http://prometheus:9090."),
    ("sources:\n  - prometheus: {url: 'http://u:p@h'}",
     "aiops.yaml:2: $.sources[0].prometheus.url: the URL holds a password, which would end up in logs. "
     "Use a file for the secret."),
    ("sources:\n  - prometheus: {url: 'http://p', packs: [nodes]}",
     "aiops.yaml:2: $.sources[0].prometheus.packs[0]: no pack 'nodes'. Did you mean 'node'?"),
    ("sources:\n  - host: {}\n    nvml: {}", "aiops.yaml:2: $.sources[0]: exactly one key is needed (one of prometheus, "
     "remote_write, kubernetes, host, nvml, logs, journald, loki, otlp, recording), found host, nvml."),
    ("sources:\n  - hosts", "aiops.yaml:2: $.sources[0]: unknown 'hosts'. Did you mean 'host'?"),
    ("sources:\n  - logs: {paths: [a], entity: api}", "aiops.yaml:2: $.sources[0].logs.entity: 'api' is no entity. "
     "Write kind/namespace/name, as service/shop/api or node//gpu-3."),
    ("sources:\n  - kubernetes: {logs: {selector: 'app in (a'}}", "aiops.yaml:2: $.sources[0].kubernetes.logs.selector: "
     "'app in (a' is no label selector. Write it like app=api, or app in (api, gateway)."),
    ("sources:\n  - loki: {url: 'http://l', query: x, backfill: 3h}",
     "aiops.yaml:2: $.sources[0].loki.backfill: must be at most 1h, got 3h."),
    ("sources:\n  - loki: {url: 'http://l', query: x, caFile: ca}", "aiops.yaml:2: $.sources[0].loki: caFile has no effect with "
     "http://. Write the url with https://, or remove it."),
    ("sources:\n  - remote_write: {maxBody: 2GiB}",
     "aiops.yaml:2: $.sources[0].remote_write.maxBody: must be at most 1GiB, got 2GiB."),
    ("sources:\n  - prometheus:", "aiops.yaml:2: $.sources[0].prometheus.url: missing, and there is no default. Add it."),
    ("store: 5", "aiops.yaml:1: $.store: must be the path of a file or folder, got 5."),
    ("sources:\n  - otlp: {}\n  - kubernetes: {events: maybe}",
     "aiops.yaml:3: $.sources[1].kubernetes.events: must be true or false, got 'maybe'."),
    ("prices: {gpuHour: cheap}", "aiops.yaml:1: $.prices.gpuHour: must be a number, got 'cheap'."),
    ("series: {max: many}", "aiops.yaml:1: $.series.max: must be a whole number, got 'many'."),
    ("sources:\n  - journald: {units: a b}",
     "aiops.yaml:2: $.sources[0].journald.units[0]: 'a b' is no unit of systemd. Write its full name, as kubelet.service."),
    ("sources:\n\t- host",
     "aiops.yaml:2: is not valid YAML: found character '\\t' that cannot start any token. Indent with spaces."),
    ("sources:\n  - host: []", "aiops.yaml:2: $.sources[0].host: must be a map, as {key: value}, got []."),
    ("sources:\n  - otlp: {port: 4318}", "aiops.yaml:2: $.sources[0].otlp.port: unknown key."),
    ("sources:\n  - remote_write: {}\n  - remote_write: {}", "aiops.yaml:1: $.sources: remote_write is there twice, and there is "
     "one address to push to. Put the rules into one."),
    ("sources:\n  - remote_write:\n      writeRelabel:\n        - {action: keep, regex: up}", "aiops.yaml:4: "
     "$.sources[0].remote_write.writeRelabel[0]: keep needs sourceLabels."),
    ("sources:\n  - remote_write:\n      writeRelabel:\n        - {action: drop, sourceLabels: [pod], regex: '(a+)+'}",
     "aiops.yaml:4: $.sources[0].remote_write.writeRelabel[0]: a repetition stands within another one, which could take for ever "
     "on long labels. Write it without, for example (a|b)* instead of (a*|b)*."),
    ("sources:\n  - remote_write: {xyz: 1}", "aiops.yaml:2: $.sources[0].remote_write.xyz: unknown key."),
    ("sources:\n  - recording: {path: x}", "aiops.yaml:2: $.sources[0].recording: not available in this version. "
     "Play recordings with 'aiops replay DIR --serve'."),
    ("detectors: [logs, baseline, logs]", "aiops.yaml:1: $.detectors: 'logs' is named twice. Remove one of the two."),
    ("detectors: []", "aiops.yaml:1: $.detectors: none of these detectors is part of this version. Add one of absence, "
     "baseline, drift, exhaustion, isolation_forest, logs, peers."),
    ("detectors: [baseline, basline]", "aiops.yaml:1: $.detectors[1]: no detector 'basline'. Did you mean 'baseline'?"),
    ("detectors:\n  - baseline\n  - isolation_forest: {tres: 64}",
     "aiops.yaml:3: $.detectors[1].isolation_forest.tres: unknown key. Did you mean 'trees'?"),
    ("detectors:\n  - isolation_forest:\n      trees: 4", "aiops.yaml:3: $.detectors[0].isolation_forest.trees: must be "
     "at least 8, got 4."),
    ("detectors:\n  - isolation_forest: {refit: 9}", "aiops.yaml:2: $.detectors[0].isolation_forest.refit: 9 is not a duration. "
     "It has no unit. Write for example 15s, 1h30m or 14d."),
    ("detectors: [{logs: {x: 1}}]", "aiops.yaml:1: $.detectors[0].logs: the detector 'logs' takes no settings. Remove them."),
    ("detectors: [baseline, {basline: {}}]", "aiops.yaml:1: $.detectors[1]: no detector 'basline'. Did you mean 'baseline'?"),
    ("detectors: [baseline, {baseline: {}}]", "aiops.yaml:1: $.detectors: 'baseline' is named twice. Remove one of the two."),
    ("detectors: [{baseline: {}, logs: {}}]", "aiops.yaml:1: $.detectors[0]: one detector an item, found baseline, logs. Begin "
     "each with its own dash."),
    ("detectors: [3]",
     "aiops.yaml:1: $.detectors[0]: must be a detector's name, alone or with a map of settings, got 3."),
    ("detectors: [{logs: 3}]",
     "aiops.yaml:1: $.detectors[0]: must be a detector's name, alone or with a map of settings, got {'logs': 3}."),
    ("sinks:\n  - slack: {channel: x}",
     "aiops.yaml:2: $.sinks[0].slack: give exactly one of webhookFile, webhookEnv, tokenFile."),
    ("sinks:\n  - slack: {tokenFile: x}",
     'aiops.yaml:2: $.sinks[0].slack: tokenFile needs a channel. Add for example channel: "#incidents".'),
    ("listen: 8750", "aiops.yaml:1: $.listen: must be text: put it in quotes, got 8750."),
    ("listen: 'localhost'",
     "aiops.yaml:1: $.listen: 'localhost' is not an address. Write host:port, for example 127.0.0.1:8750."),
    ("mode: ask\nlisten: 0.0.0.0:8750", "aiops.yaml:2: $.listen: 0.0.0.0:8750 can be reached from other machines and there "
     "is no tokenFile. Set tokenFile, or listen on 127.0.0.1."),
    ("limits:\n  nodes: {share: 0.1}", "aiops.yaml:2: $.limits.nodes.share: 0.1 is not a share. Write one from 1% to 100%, for "
     "example 25%."),
    ("limits:\n  nodes:\n    share: 120%", "aiops.yaml:3: $.limits.nodes.share: '120%' is not a share. Write one from 1% to "
     "100%, for example 25%."),
    ("limits:\n  service: {count: -1}", "aiops.yaml:2: $.limits.service.count: must be at least 0, got -1."),
    ("maintenance:\n  - {match: {entity: gpu-3}, weekly: 'Sun 02:00-04:00'}", "aiops.yaml:2: $.maintenance[0].match.entity: "
     "'gpu-3' is no entity. Write kind/namespace/name, like node//gpu-3 or pod/shop/api-*."),
    ("maintenance:\n  - {match: {}, weekly: 'Sun 02:00-04:00'}", "aiops.yaml:2: $.maintenance[0].match: names nobody. Give "
     'entity, namespace or both; entity: "*" is everybody.'),
    ("maintenance:\n  - {match: {namespace: shop}}", "aiops.yaml:2: $.maintenance[0]: give either from and until, or weekly."),
    ("maintenance:\n  - {match: {namespace: shop}, from: 2026-11-21T22:00Z, weekly: 'Sun 02:00-04:00'}",
     "aiops.yaml:2: $.maintenance[0]: give either from and until, or weekly."),
    ("maintenance:\n  - {match: {namespace: shop}, weekly: 'Sun 2-4'}", "aiops.yaml:2: $.maintenance[0]: 'Sun 2-4' is no weekly "
     "window. Write for example 'Sun 02:00-04:00', 'Mon-Fri 22:00-06:00' or 'Sat,Sun 00:00-24:00'."),
    ("maintenance:\n  - {match: {namespace: shop}, weekly: 'Sun 02:00-04:00', timezone: Berlin}",
     "aiops.yaml:2: $.maintenance[0]: no time zone 'Berlin'. Write its IANA name, like Europe/Berlin or UTC."),
    ("maintenance:\n  - match: {namespace: shop}\n    from: 2026-11-21T22:00:00\n    until: 2026-11-21T23:00:00Z",
     "aiops.yaml:3: $.maintenance[0].from: '2026-11-21T22:00:00' names no time zone. Write for example 2026-11-21T22:00:00Z."),
    ("maintenance:\n  - {match: {namespace: shop}, from: 2026-11-21T22:00Z, until: 2026-11-21T22:00Z}",
     "aiops.yaml:2: $.maintenance[0]: until is not later than from."),
    ("maintenance:\n  - {match: {namespace: shop}, from: 2026-11-21T22:00Z, until: 2026-11-22T22:00Z, timezone: UTC}",
     "aiops.yaml:2: $.maintenance[0]: timezone belongs to weekly; from and until name their own."),
    ("- a", "aiops.yaml:1: $: is not a map of settings. Start with `kind: Config`."),
    ("mode: ask\n---\nmode: act", "aiops.yaml:3: a second document. Keep one configuration in a file."),
    ("kind: Confg", "aiops.yaml:1: $.kind: must be 'Config', got 'Confg'."),
    ("mode: [", "aiops.yaml:2: is not valid YAML: expected the node content, but found '<stream end>'."),
])
def test_each_mistake_is_named_with_its_line_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    """Golden texts: what a person reads is part of the product."""
    assert errors(file(tmp_path, text + "\n")) == [message]


def test_all_mistakes_of_all_layers_are_told_at_once(tmp_path: Path) -> None:
    """Nobody should fix one line to be told about the next."""
    path = file(tmp_path, "mode: on\nbudget: {per: soon}\n")
    found = errors(path, {"AIOPS_BUDGET__INCIDENTS": "many", "AIOPS_MOD": "ask"}, listen="nowhere")
    places = [e.split(": ")[0] for e in found]
    assert places == ["AIOPS_MOD", "aiops.yaml:1", "AIOPS_BUDGET__INCIDENTS", "aiops.yaml:2", "--listen"]
    assert found[0] == "AIOPS_MOD: no setting has this name. Did you mean AIOPS_MODE?"


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """The system's reason, without a traceback."""
    assert errors(tmp_path / "aiops.yaml") == ["aiops.yaml: cannot be read: no such file or directory."]


def test_a_bad_default_url_names_its_variable() -> None:
    """A value from PROMETHEUS_URL is not blamed on a file that does not exist."""
    assert errors(None, {"PROMETHEUS_URL": "p"}) == [
        "PROMETHEUS_URL: $.sources[0].prometheus.url: 'p' is not a URL. Write it like http://prometheus:9090."]


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """What a file says must not depend on where the daemon was started."""
    text = "store: state\nsources:\n  - logs: {paths: ['*.log', /var/log/x], entity: service//x}\n"
    loaded = config.load(file(tmp_path, text), {})
    assert loaded.store == tmp_path / "state"
    assert loaded.source("logs").paths == [f"{tmp_path}/*.log", "/var/log/x"]


def test_listening_beyond_loopback_is_allowed_with_a_token() -> None:
    """The token makes the difference, whichever layer it comes from."""
    assert config.load(None, {"AIOPS_TOKEN_FILE": "/t"}, {"listen": "0.0.0.0:80"}).listen == "0.0.0.0:80"


def test_each_value_knows_where_it_was_given(tmp_path: Path) -> None:
    """`aiops config view` answers: why is this so?"""
    path = file(tmp_path, "mode: ask\nsources:\n  - host: {interval: 9s}\n")
    layers = config.read(path, {"AIOPS_BUDGET__PER": "7d"}, {"listen": "127.0.0.1:1"}).layers
    origin = {place: str(layers.given(place)).replace(str(path), "aiops.yaml") for place in [
        ("mode",), ("sources", 0, "host", "interval"), ("budget", "per"), ("budget", "incidents"), ("listen",)]}
    assert list(origin.values()) == ["aiops.yaml:1", "aiops.yaml:3", "AIOPS_BUDGET__PER", "default", "--listen"]


def test_a_replaced_list_forgets_the_origins_of_the_old_one() -> None:
    """Else an error would point at a line whose value is not in use."""
    layers = Layers()
    from aiops.layered import Origin
    layers.put(("a",), [1, 2], lambda _: Origin("file", 3))
    layers.put(("a",), [5], lambda _: Origin("FLAG"))
    assert layers.origin(("a", 1)) == layers.origin(("a", 0)) == Origin("FLAG")
    assert layers.data == {"a": [5]}


@pytest.mark.parametrize(("text", "seconds"), [
    ("15s", 15), ("1h30m", 5400), ("14d", 1209600), ("250ms", 0.25), ("2w", 1209600), ("1.5h", 5400), ("0", 0), ("0s", 0)])
def test_durations_are_read_as_go_and_prometheus_write_them(text: str, seconds: float) -> None:
    """Minutes and milliseconds share a letter; the longer unit wins."""
    assert parse_duration(text) == seconds
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "15", "s", "1h 30m", "-5s", "1y", "5 s", "1e3s", "True"])
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    """Nobody can tell seconds from milliseconds by looking at a bare number."""
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_sizes_are_read_in_both_systems_of_units() -> None:
    """Binary and decimal, and what is written can be read."""
    assert [parse_bytes(t) for t in ("10", "1kB", "1KiB", "1.5GiB")] == [10, 1000, 1024, 3 * 2**29]
    assert [format_bytes(n) for n in (0, 1000, 1024, 3 * 2**29)] == ["0B", "1000B", "1KiB", "1536MiB"]


def test_windows_of_maintenance_come_back_from_a_journal(tmp_path: Path) -> None:
    """What the header of a journal keeps of a configuration reads as the same windows, however they were written."""
    loaded = config.load(file(tmp_path, """\
maintenance:
  - {match: {entity: "node//gpu-*"}, weekly: "Sun 02:00-04:00", timezone: Europe/Berlin, reason: drivers}
  - {match: {namespace: shop}, from: 2026-11-21T22:00Z, until: 2026-11-22T01:00:00+01:00}
"""), {})
    again = schema.Config.model_validate(json.loads(loaded.model_dump_json(by_alias=True)))
    windows = build.masks(again).calendar.windows
    assert windows == build.masks(loaded).calendar.windows
    assert [(w.id, w.entities, w.namespace, str(w.when), w.reason, w.by) for w in windows] == [
        ("config-0", ("node//gpu-*",), "*", "Sun 02:00-04:00 Europe/Berlin", "drivers", "configuration"),
        ("config-1", ("*",), "shop", "2026-11-21T22:00:00Z to 2026-11-22T00:00:00Z", "", "configuration")]


def test_the_ways_into_a_prometheus_are_read_and_their_files_found(tmp_path: Path) -> None:
    """Relative to the file that names them, headers' files among them."""
    path = tmp_path / "aiops.yaml"
    path.write_text("sources:\n  - prometheus: {url: 'https://p:9090/x', caFile: ca.pem, certFile: c.pem, keyFile: k.pem, "
                    "serverName: p, username: u, passwordFile: pw, headers: {X-Team: sre}, headerFiles: {X-Key: key}, "
                    "backfillShare: 0.25}\n", encoding="utf-8")
    found = config.load(path, {}).sources[0].settings
    assert (found.ca_file, found.cert_file, found.key_file, found.password_file) == tuple(
        tmp_path / name for name in ("ca.pem", "c.pem", "k.pem", "pw"))
    assert found.header_files == {"X-Key": tmp_path / "key"}
    assert (found.headers, found.server_name, found.backfill_share) == ({"X-Team": "sre"}, "p", 0.25)


@pytest.mark.parametrize(("given", "text"), [
    ("tokenFile: t, username: u, passwordFile: p", "tokenFile and username are two ways in. Keep one."),
    ("username: u", "username and passwordFile belong together. Add the one that is missing."),
    ("keyFile: k", "keyFile is the key of a certificate. Add certFile."),
    ("caFile: c", "caFile has no effect with http://. Write the url with https://, or remove it."),
    ("insecureSkipVerify: true", "insecureSkipVerify has no effect with http://."),
    ("headers: {Authorization: 'Bearer x'}", "'Authorization' is what tokenFile, or username and passwordFile sets. Use that."),
    ("headerFiles: {x-scope-orgid: f}", "'x-scope-orgid' is what tenant sets. Use that."),
    ("headers: {'a b': x}", "headers"),
    ("headers: {a: \"x\\ny\"}", "headers"),
    ("backfillShare: 0", "backfillShare"),
])
def test_ways_into_a_prometheus_that_make_no_sense_are_told(tmp_path: Path, given: str, text: str) -> None:
    """At their line, before anything is asked of anybody."""
    path = tmp_path / "aiops.yaml"
    path.write_text(f"sources:\n  - prometheus: {{url: 'http://p', {given}}}\n", encoding="utf-8")
    with pytest.raises(Problems) as e:
        config.load(path, {})
    assert "aiops.yaml:2: $.sources[0].prometheus" in str(e.value) and text in str(e.value)


def test_a_key_of_another_section_is_not_suggested_to_itself(tmp_path):
    """`url` belongs to a webhook, not to the top."""
    path = tmp_path / "aiops.yaml"
    path.write_text("apiVersion: aiops.io/v1\nkind: Config\nurl: http://x\n", encoding="utf-8")
    with pytest.raises(Problems) as caught:
        config.load(path, {})
    assert [str(p).split(": ", 1)[1] for p in caught.value.problems] == [
        "$.url: unknown key here. It belongs to another section."]
