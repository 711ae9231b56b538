"""A capsule that can be given away: every name in it replaced, so that it still replays to the same incident.

What becomes of what: docs/decisions/020-capsules.md. The key is made for one export and kept nowhere.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from aiops import build, yamlfile
from aiops.capsules import learned as known
from aiops.capsules.names import Names
from aiops.capsules.write import parquet
from aiops.meaning import format_labels, parse_labels
from aiops.models import Learned, Lineage
from aiops.policy.ledger import action_id
from aiops.policy.texts import RESOURCE
from aiops.sources.recording.record import write_yaml
from aiops.store.capsules import CapsuleError, manifest, seal
from aiops.yamlfile import Problems

JSON = dict[str, Any]
ENTITIES = frozenset({"entity", "target", "source", "from", "to", "entities"})
KEYS = frozenset({"signal", "signals", "key"})
TEXTS = frozenset({"text", "title", "reason", "description", "policy", "signature"})
WHO = frozenset({"by", "namespace"})
IDS = frozenset({"id", "incident", "action"})
DROPPED = frozenset({"tests", "help", "description", "annotations"})
MOST_TRIED = 30
"""Decisions of one policy on one incident, when its action's id is looked for."""


def redacted(folder: Path, scratch: Path, key: bytes | None = None) -> Path:
    """Writes a capsule without names below `scratch` and returns its folder. Raises CapsuleError, OSError.

    key: for tests; else random.
    """
    try:
        work = _Redaction(folder, key or secrets.token_bytes(32))
        out = scratch / work.ids[work.incident["id"]]
        out.mkdir(mode=0o700)
        work.write(out)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as e:
        raise CapsuleError(f"{folder}: cannot be redacted: {type(e).__name__}: {e}. Nothing was written.") from None
    return out


class _Redaction:
    def __init__(self, folder: Path, key: bytes) -> None:
        self.folder, self.about = folder, manifest(folder)
        self.incident, self.run = _read(folder / "incident.json"), _read(folder / "run.json")
        self.meanings = build.meanings_from(self.run.get("packs", {}))
        self.table = _table(folder)
        self.learned = known.read(folder / "learned")
        self.names = Names(key, self._words())
        self.names.learn(name.partition("/")[2] for name in self._entities())
        self._labels: dict[tuple[str, str], str] = {}
        self.names.learn(v for labels in self._label_texts() for k, v in _parsed(labels).items() if not self._stays(k, v))
        self.ids = self._ids()
        self.left_out: dict[str, int] = dict(self.about.get("left_out", {}))

    # ------------------------------------------------------------------------------------------------ what is known
    def _words(self) -> set[str]:
        """Names of metrics, signals and alerts of others: they stay."""
        own = set(self.table["metric"].cat.categories) if self.table is not None else set()
        signals = {a["signal"].partition("{")[0] for a in self.incident["alerts"]}
        door = {row[1] for part in ("signals", "series") for row in self.learned.door[part]} if self.learned else set()
        return own | signals | door | set(self.meanings.signals) | {m for p in self.meanings.packs for m in p.metrics}

    def _entities(self) -> set[str]:
        found = set(self.table["entity"].cat.categories) if self.table is not None else set()
        found |= {x for _, part in self.run["links"] for n in part["nodes"] for x in [n["entity"]]}
        found |= {x for _, part in self.run["links"] for e in part["edges"] for x in (e["source"], e["target"])}
        found |= {row["entity"] for name in ("logs", "events", "alerts") for row in _rows(self.folder / f"{name}.jsonl.gz")}
        if self.learned:
            found |= {row[0] for part in ("signals", "series") for row in self.learned.door[part]}
        return found | {a["target"] for a in self.incident["actions"]} | set(self.incident["entities"])

    def _label_texts(self) -> set[str]:
        found = set(self.table["labels"].cat.categories) if self.table is not None else set()
        return found | ({row[2] for part in ("signals", "series") for row in self.learned.door[part]} if self.learned else set())

    def _ids(self) -> dict[str, str]:
        """Of the incident and its actions: what the replay will call them. They are hashes over names."""
        old, opened_at = self.incident["id"], self.incident["opened_at"]
        first = next((a for a in self.incident["alerts"] if _incident_id(opened_at, f"{a['entity']}|{a['signal']}") == old), None)
        new = _incident_id(opened_at, self.pair(f"{first['entity']}|{first['signal']}")) if first else "inc-" + self.names.id(old)
        ids = {old: new}
        for action in self.incident["actions"]:
            ids[action["id"]] = self._action(action, old, new)
            ids[action_id(action["id"], "undo")] = action_id(ids[action["id"]], "undo")
        return ids

    def _action(self, action: Mapping[str, Any], old: str, new: str) -> str:
        policy = action["policy"]
        tails = [(i, n) for i in range(MOST_TRIED) for n in range(MOST_TRIED)]
        tails += [(i, "refused", action["state"]) for i in range(MOST_TRIED)]  # type: ignore[misc]
        tail = next((t for t in tails if action_id(policy, old, *t) == action["id"]), None)
        return action_id(self.names.text(policy), new, *tail) if tail else "a-" + self.names.id(action["id"])

    # ------------------------------------------------------------------------------------------------------- strings
    def labels(self, text: str) -> str:
        """`k="v",…`: values that a pack asks for and numbers stay."""
        return format_labels({k: self.label(k, v) for k, v in _parsed(text).items()})

    def label(self, name: str, value: str) -> str:
        if (name, value) not in self._labels:
            self._labels[name, value] = value if self._stays(name, value) else self.names.name(value)
        return self._labels[name, value]

    def _stays(self, name: str, value: str) -> bool:
        """A short number, or a value on which it depends what a pack makes of the series."""
        if re.fullmatch(r"[+-]?(\d{1,6}(\.\d{1,6})?|Inf)", value):
            return True
        patterns = self._patterns().get(name, ())
        return any(re.fullmatch(p, value) is not None and re.fullmatch(p, "\0") is None for p in patterns)

    def _patterns(self) -> Mapping[str, Sequence[str]]:
        if not hasattr(self, "_asked"):
            self._asked: dict[str, list[str]] = {}
            for rule in self.meanings.signals.values():
                for part in rule.parts:
                    for name, pattern in part.where.items():
                        self._asked.setdefault(name, []).append(pattern)
        return self._asked

    def key(self, text: str) -> str:
        """A signal as Prometheus writes it: `name{labels}`."""
        name, brace, labels = text.partition("{")
        return f"{name}{{{self.labels(labels.removesuffix('}'))}}}" if brace else name

    def pair(self, text: str) -> str:
        """`entity|signal`, or an entity."""
        entity, bar, signal = text.partition("|")
        return self.names.entity(entity) + (f"|{self.key(signal)}" if bar else "")

    def id(self, text: str) -> str:
        """Of an incident, an action or a window, also of another one than this."""
        head, _, tail = text.partition("-")
        other = f"{head}-{self.names.id(tail)}" if head in ("inc", "a", "mnt") else self.names.text(text)
        return self.ids.get(text, other)

    # ------------------------------------------------------------------------------------------------------ documents
    def walk(self, value: Any, field: str = "") -> Any:
        """A JSON value; what a text is follows from the name of its field."""
        if isinstance(value, Mapping):
            if field == "labels":
                return {k: self.label(k, str(v)) for k, v in value.items()}
            return {self._field(k): self.walk(v, "params" if field == "params" else k) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.walk(v, field) for v in value]
        return self._string(value, field) if isinstance(value, str) else value

    def _field(self, name: str) -> str:
        """Keys of maps are fields, ids, `entity|signal`, or whatever else: then a text."""
        if name in self.ids or re.match(r"(inc|mnt|a)-", name):
            return self.id(name)
        if "/" in name:
            return self.pair(name)
        return name if re.fullmatch(r"[A-Za-z_]{1,30}", name) else self.names.text(name)

    def _string(self, value: str, field: str) -> str:
        if value in self.ids or field in IDS or (field == "target" and "/" not in value):
            return self.id(value)
        if field in ENTITIES:
            return self.names.entity(value)
        if field == "class":
            kind, of, workload = value.rpartition(" of ")
            return f"{kind}{of}{self.names.entity(workload.rstrip('*'))}{'*' * workload.endswith('*')}"
        if field in KEYS:
            return self.pair(value) if "|" in value else self.key(value)
        if field in WHO:
            return self.names.name(value)
        if field in TEXTS or field == "params":
            return self.names.text(value)
        return value if re.fullmatch(r"[a-z_]{0,30}", value) and not self.names.knows(value) else self.names.text(value)

    # --------------------------------------------------------------------------------------------------------- write
    def write(self, out: Path) -> None:
        """All files, and the manifest over them."""
        self._metrics(out / "metrics.parquet")
        for name in ("logs", "events", "alerts"):
            self._lines(self.folder / f"{name}.jsonl.gz", out / f"{name}.jsonl.gz")
        for name, change in (("topology.yaml", self._topology), ("fixture.yaml", self._fixture)):
            if (self.folder / name).exists():
                write_yaml(out / name, change(yamlfile.read(self.folder / name)[0].data))
        _write(out / "incident.json", self._told())
        _write(out / "run.json", self._run())
        if self.learned is not None:
            known.write(out / "learned", self._known(self.learned))
        about = {k: v for k, v in self.about.items() if k not in ("files", "bytes", "aiops_capsule")}
        seal(out, {**about, "incident": self.ids[self.incident["id"]], "title": self.names.text(self.about["title"]),
                   "left_out": self.left_out, "redacted": True})

    def _told(self) -> JSON:
        priority = self.incident.get("priority")
        level = {"priority": {**self.walk(priority), "level": priority["level"]}} if priority else {}
        return {**self.walk(self.incident), **level, "models": self.incident["models"], "alerts": [
            {**self.walk(a), "detectors": a["detectors"], "unit": a["unit"]} for a in self.incident["alerts"]],
            "actions": [{**self.walk(a), "type": a["type"], "models": a["models"]} for a in self.incident["actions"]]}

    def _fixture(self, found: JSON) -> JSON:
        name = self.ids[self.incident["id"]]
        return {**found, "name": name, "incident": name, "description": self.names.text(str(found.get("description", "")))}

    def _topology(self, found: JSON) -> JSON:
        nodes = [{**self.walk(n), "id": self.names.entity(n["id"])} for n in found.get("nodes", [])]
        return {"nodes": nodes, "edges": [self.walk(e) for e in found.get("edges", [])]}

    def _metrics(self, path: Path) -> None:
        if self.table is None:
            return
        columns: dict[str, Any] = {}
        rows = self.table[["entity", "metric", "labels"]].drop_duplicates()
        import pandas as pd

        order = pd.MultiIndex.from_frame(rows.astype(str))
        ids = order.get_indexer(pd.MultiIndex.from_frame(self.table[["entity", "metric", "labels"]].astype(str)))
        told: dict[str, Callable[[str], str]] = {"entity": self.names.entity, "metric": str, "labels": self.labels}
        for name in ("time", "entity", "metric", "labels", "value", "at"):
            columns[name] = ([told[name](x) for x in rows[name].astype(str)] if name in told
                             else self.table[name].to_numpy(np.float64))
        parquet(path, ids, columns)

    def _lines(self, path: Path, out: Path) -> None:
        rows = [self.walk(row) | {k: row[k] for k in ("kind", "name", "status", "severity") if k in row} for row in _rows(path)]
        if rows:
            text = "".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n" for r in rows)
            out.write_bytes(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0))

    def _run(self) -> JSON:
        run, config = self.run, dict(self.run.get("config", {}))
        if config.get("maintenance"):
            config["maintenance"] = [self._window(m) for m in config["maintenance"]]
        if config.get("slos"):
            config["slos"] = [self._slo(objective) for objective in config["slos"]]
        if config.get("policies"):
            config["policies"] = {"beyond": self._beyond()}
        packs = {f"pack-{n}.yaml": _yaml(_without(d.data)) for n, (file, text) in enumerate(sorted(run.get("packs", {}).items()))
                 for d in yamlfile.parse(text, file)}
        memory = self.walk(run.get("policy_memory", {}))
        links = [[at, {"nodes": [self.walk(n) for n in part["nodes"]], "edges": [
            {**self.walk(e), "kind": e["kind"]} for e in part["edges"]]}] for at, part in run["links"]]
        return {**run, "config": config, "packs": packs, "policies": self._policies(run.get("policies", {})), "links": links,
                "policy_changes": [[at, self._policies(texts)] for at, texts in run.get("policy_changes", [])],
                "policy_memory": _same_kinds(run.get("policy_memory", {}), memory),
                "mask_memory": self.walk(run.get("mask_memory", {})),
                "outcomes": [[at, {**self.walk(o), "status": o["status"]}] for at, o in run["outcomes"]],
                "commands": [[at, {**self.walk(c), "verb": c["verb"]}] for at, c in run["commands"]]}

    def _window(self, window: Mapping[str, Any]) -> JSON:
        match = {k: self.names.entity(v) if k == "entity" else self.names.name(v) for k, v in window["match"].items()}
        return {**window, "match": match, "reason": self.names.text(str(window.get("reason", "")))}

    def _slo(self, objective: Mapping[str, Any]) -> JSON:
        return {**objective, "name": self.names.text(objective["name"]), "entity": self.names.entity(objective["entity"])}

    def _policies(self, texts: Mapping[str, str]) -> dict[str, str]:
        """Those that can still be read without their names; how many cannot is counted."""
        beyond = self._beyond()
        out: dict[str, str] = {}
        for n, (file, text) in enumerate(sorted(texts.items())):
            for m, document in enumerate(yamlfile.parse(text, file)):
                data, resource = self._policy(_without(document.data)), file.startswith(RESOURCE)
                new = json.dumps(data, ensure_ascii=False) if resource else _yaml(data)
                try:
                    build.policies_from({file: new}, self.meanings, beyond)
                except Problems:
                    self.left_out["policies"] = self.left_out.get("policies", 0) + 1
                    continue
                out[f"{RESOURCE}policy-{n}-{m}" if resource else f"policy-{n}-{m}.yaml"] = new
        return out

    def _beyond(self) -> list[str]:
        return [self.names.text(n) for n in self.run.get("config", {}).get("policies", {}).get("beyond", [])]

    def _policy(self, value: Any, field: str = "") -> Any:
        if isinstance(value, Mapping):
            return {k: self._policy(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [self._policy(v, field) for v in value]
        stays = field in ("apiVersion", "kind", "type", "model", "mode", "metric", "successMetric")
        return self.names.text(value) if isinstance(value, str) and not stays else value

    # ----------------------------------------------------------------------------------------------- what was learned
    def _known(self, found: Learned) -> Learned:
        signals = [[self.names.entity(row[0]), row[1], self.labels(row[2]), *row[3:]] for row in found.door["signals"]]
        series = [[self.names.entity(row[0]), row[1], self.labels(row[2])] for row in found.door["series"]]
        lineages = {name: Lineage(replace(x.serving, state=self._state(x.serving.state)), since=x.since)
                    for name, x in found.lineages.items() if name != "logs"}  # redacted lines are of other kinds
        more = {"alerting": self._alerting(found.more["alerting"])} if "alerting" in found.more else {}
        return replace(found, door={**found.door, "signals": signals, "series": series}, lineages=lineages, more=more)

    def _state(self, value: Any) -> Any:
        """Of a detector: texts are entities or, below them, log lines; names of fields stay."""
        if isinstance(value, Mapping):
            return {self.names.entity(k) if k.count("/") >= 2 else k: self._state(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._state(v) for v in value]
        if isinstance(value, str):
            return self.names.entity(value) if value in self._all else self.names.text(value)
        return value

    @property
    def _all(self) -> set[str]:
        if not hasattr(self, "_known_entities"):
            self._known_entities = self._entities()
        return self._known_entities

    def _alerting(self, state: Mapping[str, Any]) -> JSON:
        def renamed(table: Mapping[str, Any], change: Callable[[Any], Any] = lambda v: v) -> JSON:
            return {self.pair(k): change(v) for k, v in table.items()}

        def track(t: Mapping[str, Any]) -> JSON:
            last = t["last"]
            return {**t, "last": {**last, "entity": self.names.entity(last["entity"]), "name": self.key(last["name"]),
                                  "text": self.names.text(last["text"])}}
        ladder = {"keys": renamed(state["ladder"]["keys"], lambda v: [self.names.entity(v[0]), *v[1:]]),
                  "entities": renamed(state["ladder"]["entities"])}
        on = renamed(state["others"]["on"], lambda a: {**a, "entity": self.names.entity(a["entity"])})
        others = {**state["others"], "on": on, "pasts": renamed(state["others"]["pasts"])}
        budget = {**state["budget"], "verdicts": {self.id(k): v for k, v in state["budget"]["verdicts"].items()}}
        return {**state, "tracks": renamed(state["tracks"], track), "ladder": ladder, "habits": renamed(state["habits"]),
                "others": others, "budget": budget}


def _incident_id(at: float, key: str) -> str:
    """As `correlators.group` names an incident by the alert that opened it."""
    return "inc-" + hashlib.sha256(f"{at:.3f}|{key}".encode()).hexdigest()[:10]


def _same_kinds(old: Any, new: Any) -> Any:
    """Fields of attempts that are words of the program, as they were."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for was, now in zip(old.get("attempts", []), new.get("attempts", []), strict=False):
            now.update({k: was[k] for k in ("type", "state", "undo") if k in was})
        for k in ("ledger",):
            if k in old:
                _same_kinds(old[k], new[k])
    return new


def _without(value: Any) -> Any:
    """Less what is for people, and tests."""
    if isinstance(value, Mapping):
        return {k: _without(v) for k, v in value.items() if k not in DROPPED}
    return [_without(v) for v in value] if isinstance(value, list) else value


def _yaml(value: Any) -> str:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.width = 1000
    out = StringIO()
    yaml.dump(value, out)
    return out.getvalue()


def _parsed(labels: str) -> dict[str, str]:
    try:
        return parse_labels(labels)
    except ValueError:
        return {}


def _table(folder: Path) -> Any:
    path = folder / "metrics.parquet"
    if not path.exists():
        return None
    import fastparquet

    try:
        table = fastparquet.ParquetFile(str(path)).to_pandas()
        for name in ("entity", "metric", "labels"):
            table[name] = table[name].astype("category")
        return table
    except Exception as e:  # noqa: BLE001 - any reader's error means: this file is no parquet file
        raise CapsuleError(f"{path}: cannot be read as parquet: {str(e).splitlines()[0]}.") from None


def _rows(path: Path) -> Iterable[JSON]:
    """Objects of a file of JSON lines; nothing where there is no file."""
    if path.exists():
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
            yield from (json.loads(line) for line in file)


def _read(path: Path) -> JSON:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as e:
        raise CapsuleError(f"{path}: cannot be read: {getattr(e, 'strerror', None) or e}. Export the capsule again.") from None


def _write(path: Path, value: JSON) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8", errors="replace")

