"""Reading the configuration: one YAML file; flags > environment (`AIOPS_`, `__` nesting) > file > defaults.

Imports pydantic and the YAML reader only, so that every command can afford it. What may be set is in `aiops.schema`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from aiops import layered, plugins, yamlfile
from aiops.layered import Layers, Merged, Origin
from aiops.oneof import hint
from aiops.schema import Config, available
from aiops.unused import unused
from aiops.yamlfile import Problem, Problems

__all__ = ["Config", "Loaded", "default_for", "in_cluster", "known_keys", "load", "read"]

# Read elsewhere (client, tests), or put into every pod by Kubernetes for a Service that is called `aiops`.
NOT_OURS = re.compile(r"AIOPS_(SERVER|TOKEN|DEBUG|REQUIRE_REAL|SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_.*)?)")
PATH_KEYS = frozenset({"policies", "folder", "store", "tokenFile", "packs", "file", "path", "paths", "kubeconfig", "webhookFile",
                       "secretFile", "passwordFile", "caFile", "certFile", "keyFile", "directory"})


@lru_cache
def known_keys() -> frozenset[str]:
    """Every key that may stand somewhere in a configuration file."""
    def keys(schema: object) -> set[str]:
        if isinstance(schema, list):
            return set().union(*map(keys, schema))
        if not isinstance(schema, dict):
            return set()
        own = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
        return own.union(*(keys(v) for v in schema.values()))
    return frozenset(keys(Config.model_json_schema()))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and where each value of it was given. `base` is what relative paths were relative to.

    `notes`: what it says that has no effect in this version, each at its place.
    """

    config: Config
    layers: Layers
    base: Path
    notes: tuple[Problem, ...] = ()


def in_cluster(env: Mapping[str, str]) -> bool:
    """Kubernetes puts this variable into every container."""
    return bool(env.get("KUBERNETES_SERVICE_HOST"))


def load(path: Path | None, env: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Config:
    """The configuration from all layers. Raises Problems with everything that is wrong, each at its place."""
    return read(path, env, flags).config


def default_for(env: Mapping[str, str], inside: bool | None = None) -> Config:
    """What runs without a configuration: the cluster, else `PROMETHEUS_URL`, else this host."""
    layers = Layers()
    _put_defaults(layers, env, in_cluster(env) if inside is None else inside)
    return yamlfile.validate(Merged("default", layers.data, {}, layers), Config)


def read(path: Path | None, env: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Loaded:
    """As `load`, with the origin of each value."""
    layers = Layers()
    problems: list[Problem] = []
    _put_defaults(layers, env, in_cluster(env))
    base = (path.parent if path else Path()).absolute()
    try:
        if path:
            _put_file(layers, path)
        layered.put_environment(layers, env, "AIOPS_", known_keys(), NOT_OURS) if _any_ours(env) else None
    except Problems as e:
        problems += e.problems
    layered.put_flags(layers, flags or {})
    _anchor(layers.data, base)
    try:
        config = yamlfile.validate(Merged(str(path or "default"), layers.data, {}, layers), Config)
    except Problems as e:
        problems += e.problems
    else:
        problems += _unknown_packs(config, layers)
    problems += _detector_settings(layers)
    if problems:
        raise Problems(problems)
    merged = Merged("default", layers.data, {}, layers)
    return Loaded(config, layers, base, tuple(merged.problem(place, text) for place, text in unused(config)))


def _unknown_packs(config: Config, layers: Layers) -> Iterator[Problem]:
    """Packs are checked here and not in the schema: which there are depends on the setting `packs`."""
    folders = [Path(__file__).parent / "packs", *([config.packs] if config.packs else [])]
    known = tuple(sorted({p.stem for folder in folders for p in folder.glob("*.yaml")}))
    for i, item in enumerate(config.sources):
        for j, name in enumerate((item.prometheus.packs or []) if item.prometheus else []):
            if name not in known:
                place = ("sources", i, "prometheus", "packs", j)
                yield Merged("", {}, {}, layers).problem(place, f"no pack {name!r}.{hint(name, known)}")


def _detector_settings(layers: Layers) -> Iterator[Problem]:
    """Checked here and not in the schema: only a detector's own file knows, and is only loaded when something is set.

    Of what is a detector with settings, whatever else is wrong: people want all mistakes at once.
    """
    merged, items = Merged("", {}, {}, layers), layers.data.get("detectors")
    for i, item in enumerate(items if isinstance(items, list) else ()):
        name, given = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else ("", None)
        if given and isinstance(given, dict) and available([name]):
            model = plugins.settings(plugins.load("detectors", name))
            if model is None:
                yield merged.problem(("detectors", i, name), f"the detector {name!r} takes no settings. Remove them.")
            else:
                yield from yamlfile.faults(merged, ("detectors", i, name), given, model)


def _any_ours(env: Mapping[str, str]) -> bool:
    return any(name.startswith("AIOPS_") and not NOT_OURS.fullmatch(name) for name in env)


def _put_file(layers: Layers, path: Path) -> None:
    documents = yamlfile.read(path)
    if len(documents) > 1:
        line = documents[1].line(())
        raise Problems([Problem(str(path), line, "", "a second document. Keep one configuration in a file.")])
    for document in documents:
        layered.put_file(layers, document)


def _put_defaults(layers: Layers, env: Mapping[str, str], inside: bool) -> None:
    default, told = Origin("default"), Origin("PROMETHEUS_URL")
    url = env.get("PROMETHEUS_URL")
    if inside:
        layers.put(("sources",), [{"kubernetes": {}}, *([{"prometheus": {"url": url}}] if url else [])],
                   lambda p: told if "prometheus" in p else default)
    elif url:
        layers.put(("sources",), [{"prometheus": {"url": url}}], lambda _: told)
    else:
        gpus: list[dict[str, object]] = [{"nvml": {}}] if Path("/dev/nvidiactl").exists() else []
        layers.put(("sources",), [{"host": {}}, *gpus], lambda _: default)
    layers.put(("store",), str(_state_folder(env, inside)), lambda _: default)
    shipped = Path(__file__).parents[1] / "policies"
    if shipped.is_dir():
        layers.put(("policies",), str(shipped), lambda _: default)


def _state_folder(env: Mapping[str, str], inside: bool) -> Path:
    """/var/lib/aiops for a service, else the user's own folder (XDG base directories)."""
    if inside or not (env.get("XDG_STATE_HOME") or env.get("HOME")):
        return Path("/var/lib/aiops")
    return Path(env.get("XDG_STATE_HOME") or env["HOME"] + "/.local/state") / "aiops"


def _anchor(node: Any, base: Path) -> None:
    """Relative paths become absolute, in place: what a file says must not depend on where the daemon was started."""
    items: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        if key in PATH_KEYS and isinstance(value, str) and value:
            node[key] = os.path.normpath(base / Path(value).expanduser())
        elif key in ("headerFiles", "tokenFiles") and isinstance(value, dict):
            node[key] = {k: os.path.normpath(base / v) if isinstance(v, str) else v for k, v in value.items()}
        elif key == "paths" and isinstance(value, list):
            node[key] = [os.path.normpath(base / v) if isinstance(v, str) else v for v in value]
        else:
            _anchor(value, base)
