"""What a configuration says that has no effect in this version.

Such keys are accepted, so that one file serves several versions; `aiops check`, the daemon's log and the page tell them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from aiops import meaning
from aiops.schema import Config, available, detector_name
from aiops.yamlfile import Place

Unused = Iterator[tuple[Place, str]]


def unused(config: Config) -> Unused:
    """Each such place, with what does not happen and the remedy. In the order of the keys of `Config`."""
    watches = any(item.kind == "kubernetes" for item in config.sources)
    if config.mode != "observe" and not watches:
        yield ("mode",), f"{config.mode!r}, but there is no kubernetes source: decisions are shown and nothing is carried out."
    if config.policies.kubernetes and not watches:
        yield ("policies", "kubernetes"), "there is no kubernetes source that says where the cluster is. Add one."
    yield from _sources(config)
    yield from _topology(config, watches)
    yield from _detectors(config)
    yield from _slos(config)


def _sources(config: Config) -> Unused:
    for i, item in enumerate(config.sources):
        if item.kind == "otlp" and any(before.kind == "otlp" for before in config.sources[:i]):
            yield ("sources", i, "otlp"), "there is an otlp source above already, which receives everything. Remove this one."


def _topology(config: Config, watches: bool) -> Unused:
    topology = config.topology
    if topology.kubernetes and "kubernetes" in topology.model_fields_set and not watches:
        yield ("topology", "kubernetes"), "there is no kubernetes source to take the topology from. Add one."


def _detectors(config: Config) -> Unused:
    there = available(config.detectors)
    for i, name in enumerate(map(detector_name, config.detectors)):
        if name not in there:
            yield ("detectors", i), f"the detector {name!r} is not part of this version and is left out."


def _slos(config: Config) -> Unused:
    """Signals that nothing is likely to be called, and levels that are taken for shares. Packs of its own may know better."""
    known = meaning.shipped().signals if config.slos and config.packs is None else {}
    for i, slo in enumerate(config.slos):
        name = slo.signal.partition("{")[0]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if name in known and known[name].unit != "ratio" and slo.below is None and slo.above is None:
            unit = known[name].unit or "a number"
            yield ("slos", i, "signal"), f"{name} is no share but {unit}: any counts as bad. Say what is good: below, or above."
        elif name not in known and close:
            yield ("slos", i, "signal"), f"no pack knows {name!r}, so that nothing is counted. Did you mean {close[0]!r}?"
