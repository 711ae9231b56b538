"""From configuration to sources. No thread is started here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import structlog

from aiops.clock import WallClock
from aiops.inputs import Prometheus
from aiops.interfaces import Clock, Samples
from aiops.meaning import Meanings
from aiops.schema import Config
from aiops.sources.supervisor import Supervised

if TYPE_CHECKING:
    from aiops.sources.access import Access

log = structlog.get_logger("aiops.sources")


class Source(Supervised):
    """A supervised source that logs when it begins to fail and when it works again."""

    def _attempt(self, work: Callable[[], object], now: float) -> bool:
        before = self._state
        done = super()._attempt(work, now)
        if self._state != before:
            tell = log.info if done else log.warning
            tell(f"source {self._state}", source=self.name, **({} if done else {"error": self._error}))
        return done


class TopologyFile:
    """A topology file as a source: read again when it changes."""

    name, interval_s = "topology-file", 30.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[float, int, int] | None = None

    def poll(self, now: float, into: Samples) -> None:
        """Raises Problems when the file is malformed, OSError when it is gone: the last good topology stays."""
        from aiops.sources.recording.about import read_topology

        about = self._path.stat()
        changed = about.st_mtime, about.st_size, about.st_ino
        if changed != self._seen:
            into.links(self.name, read_topology(self._path))
            self._seen = changed

    def close(self) -> None:
        """Nothing is held open."""


def sources(config: Config, clock: Clock, known: Meanings, since: float | None = None) -> list[Source]:
    """Every configured source, supervised. Raises ConfigurationError where one cannot be made.

    since: the past before this is known already, and is not read.
    """
    made: list[Any] = []
    for number, item in enumerate(config.sources):
        name = f"{item.kind}-{number}" if _twice(config, item.kind) else item.kind
        settings = item.settings
        if since is not None and hasattr(settings, "backfill_s"):
            settings = settings.model_copy(update={"backfill_s": min(settings.backfill_s, max(0.0, clock.now() - since))})
        if item.kind in _MAKERS:  # the others are told by aiops.unused
            made.append(_MAKERS[item.kind](settings, name, config, known))
    if config.topology.file:
        made.append(TopologyFile(config.topology.file))
    _tell_of_others(made)
    return [Source(s, clock) for s in made]


def _tell_of_others(made: list[Any]) -> None:
    """A source that would leave out what others bring (`elsewhere`) learns which metrics they have `found`."""
    others = [s for s in made if hasattr(s, "found")]
    for source in made:
        if getattr(source, "yields", False) and others:
            source.elsewhere = lambda metric: any(metric in other.found for other in others)


def _twice(config: Config, kind: str) -> bool:
    return sum(item.kind == kind for item in config.sources) > 1


def _host(settings: Any, name: str, config: Config, known: Meanings) -> Any:
    from aiops.sources.host.source import HostSource
    return HostSource(name, settings.interval_s, node=os.environ.get("NODE_NAME"))


def _nvml(settings: Any, name: str, config: Config, known: Meanings) -> Any:
    from aiops.sources.nvml.source import NvmlSource
    return NvmlSource(name, settings.interval_s, node=os.environ.get("NODE_NAME"))


def _logs(settings: Any, name: str, config: Config, known: Meanings) -> Any:
    from aiops.sources.logs.source import LogFileSource
    return LogFileSource(settings.paths, name, config.tick_s, entity=settings.entity or "", multiline=settings.multiline,
                         zone=ZoneInfo(settings.timezone), place=config.store / f"offsets-{name}.json")


def _journald(settings: Any, name: str, config: Config, known: Meanings) -> Any:
    from aiops.sources.journald.source import JournaldSource
    return JournaldSource(name, settings.interval_s, units=settings.units, priority=settings.priority,
                          directory=settings.directory, node=os.environ.get("NODE_NAME"),
                          place=config.store / f"offsets-{name}.json")


def _loki(settings: Any, name: str, config: Config, known: Meanings) -> Any:
    from aiops.sources.loki.api import LokiApi
    from aiops.sources.loki.source import LokiSource
    api = LokiApi(settings.url, tenant=settings.tenant, token_file=settings.token_file, ca_file=settings.ca_file,
                  timeout_s=settings.timeout_s)
    return LokiSource(name, api, settings.query, known, interval_s=settings.interval_s, backfill_s=settings.backfill_s,
                      limit=settings.limit, tail=settings.tail, place=config.store / f"offsets-{name}.json")


def _otlp(settings: Any, name: str, config: Config, known: Meanings) -> Any:
    from aiops.sources.otlp.source import OtlpSource
    return OtlpSource(name, config.tick_s, WallClock().now, known)


def _prometheus(settings: Any, name: str, config: Config, known: Meanings) -> Any:
    from aiops.sources.prometheus.source import PrometheusSource
    return PrometheusSource(name, settings.url, meanings=known, packs=settings.packs, interval_s=settings.interval_s,
                            backfill_s=settings.backfill_s, share=settings.backfill_share, timeout_s=settings.timeout_s,
                            access=prometheus_access(settings))


def prometheus_access(settings: Prometheus) -> Access:
    """What the settings say of credentials and TLS."""
    from aiops.sources.access import Access
    names = {f.name for f in fields(Access)} - {"token"}
    return Access(**{name: getattr(settings, name) for name in names})


def _kubernetes(settings: Any, name: str, config: Config, known: Meanings) -> Any:
    from aiops.sources.kubernetes.source import KubernetesSource
    return KubernetesSource(name, settings.interval_s, namespaces=settings.namespaces, events=settings.events,
                            states=settings.states, secrets=settings.secrets, topology=config.topology.kubernetes,
                            log_selector=settings.logs.selector if settings.logs else "",
                            kubeconfig=settings.kubeconfig, context=settings.context)


def _remote_write(settings: Any, name: str, config: Config, known: Meanings) -> Any:
    from aiops.remote_write.codec import Limits
    from aiops.sources.remote_write import RemoteWriteSource
    return RemoteWriteSource(name, known, rules=[r.rule for r in settings.write_relabel], max_body=settings.max_body,
                             limits=Limits(message=settings.max_message, labels=settings.max_labels),
                             max_age_s=settings.max_age_s, max_ahead_s=settings.max_ahead_s)


_MAKERS: dict[str, Callable[[Any, str, Config, Meanings], Any]] = {
    "host": _host, "nvml": _nvml, "logs": _logs, "journald": _journald, "loki": _loki, "otlp": _otlp, "prometheus": _prometheus,
    "kubernetes": _kubernetes, "remote_write": _remote_write}
