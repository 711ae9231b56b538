"""From configuration to parts: packs, policies, pipeline, sources, sinks. No thread is started here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from aiops import meaning, plugins, yamlfile
from aiops.alerting import Alerting
from aiops.cluster.actuator import LiveActuator
from aiops.interfaces import Clock, Refused, Samples, Sink
from aiops.meaning import Meanings
from aiops.pipeline import Pipeline
from aiops.policy.decide import PolicyBook
from aiops.policy.load import Policy, compile_document
from aiops.policy.load import load as load_policies
from aiops.schema import Config
from aiops.sources.supervisor import Supervised
from aiops.yamlfile import Problem, Problems
from correlators.correlate import Correlate

SHIPPED_POLICIES = Path(__file__).parents[1] / "policies"
DEFAULT_DETECTORS = ("baseline", "isolation_forest", "absence", "logs", "drift")
Mode = Literal["observe", "ask", "act"]


class ConfigurationError(Exception):
    """Something that the configuration names cannot be used. The text names it and the remedy."""


def meanings(config: Config) -> Meanings:
    """The shipped packs and those of the configured folder. Raises Problems."""
    shipped = meaning.shipped()
    return Meanings((*shipped.packs, *meaning.load(config.packs).packs)) if config.packs else shipped


def policies(folder: Path | None, known: Meanings) -> tuple[Policy, ...]:
    """The policies of a folder, or those that come with the program. Raises Problems with everything that is wrong."""
    folder = folder or (SHIPPED_POLICIES if SHIPPED_POLICIES.is_dir() else None)
    return load_policies([folder], known) if folder else ()


def policies_from(texts: Mapping[str, str], known: Meanings) -> tuple[Policy, ...]:
    """Policies from the texts that a journal keeps: file name -> YAML. Raises Problems."""
    problems: list[Problem] = []
    found = [compile_document(d, known, problems) for file, text in sorted(texts.items()) for d in yamlfile.parse(text, file)]
    if problems:
        raise Problems(problems)
    return tuple(sorted((p for p in found if p), key=lambda p: p.name))


def policy_texts(folder: Path | None) -> dict[str, str]:
    """The policy files of a folder, or of the program, as text: for the journal."""
    folder = folder or SHIPPED_POLICIES
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".yaml", ".yml")) if folder.is_dir() else []
    return {p.name: p.read_text(encoding="utf-8") for p in files}


def pipeline(known: Meanings, book: Sequence[Policy], mode: Mode, detectors: Sequence[str] = DEFAULT_DETECTORS,
             incidents: float = 1.0, per_s: float = 86_400.0) -> Pipeline:
    """A pipeline that has seen nothing yet."""
    return Pipeline(known, [plugins.load("detectors", name)() for name in detectors], Alerting(incidents, per_s),
                    Correlate(), PolicyBook(book, mode, known))


# ------------------------------------------------------------------------------------------------------- live parts
class Source(Supervised):
    """A supervised source with the interval at which it wants to be polled."""

    @property
    def interval_s(self) -> float:
        return self.source.interval_s


class TopologyFile:
    """A topology file as a source: read again when it changes."""

    name, interval_s = "topology-file", 30.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: float | None = None

    def poll(self, now: float, into: Samples) -> None:
        """Raises Problems when the file is malformed, OSError when it is gone: the last good topology stays."""
        from aiops.sources.recording import read_topology

        changed = self._path.stat().st_mtime
        if changed != self._seen:
            into.links(self.name, read_topology(self._path))
            self._seen = changed

    def close(self) -> None:
        """Nothing is held open."""


def sources(config: Config, clock: Clock, known: Meanings) -> list[Source]:
    """Every configured source, supervised. Raises ConfigurationError where one cannot be made."""
    made: list[Any] = []
    for number, item in enumerate(config.sources):
        name = f"{item.kind}-{number}" if _twice(config, item.kind) else item.kind
        made.append(_MAKERS[item.kind](item.settings, known, name))
    if config.topology.file:
        made.append(TopologyFile(config.topology.file))
    return [Source(s, clock) for s in made]


def _twice(config: Config, kind: str) -> bool:
    return sum(item.kind == kind for item in config.sources) > 1


def _host(settings: Any, known: Meanings, name: str) -> Any:
    from aiops.sources.host import HostSource
    return HostSource(name, settings.interval_s, node=os.environ.get("NODE_NAME"))


def _nvml(settings: Any, known: Meanings, name: str) -> Any:
    from aiops.sources.nvml import NvmlSource
    return NvmlSource(name, settings.interval_s, node=os.environ.get("NODE_NAME"))


def _logs(settings: Any, known: Meanings, name: str) -> Any:
    from aiops.sources.logfile import LogFileSource
    return LogFileSource(settings.paths, name, entity=settings.entity)


def _prometheus(settings: Any, known: Meanings, name: str) -> Any:
    from aiops.sources.prometheus import PrometheusSource
    return PrometheusSource(name, settings.url, meanings=known, packs=settings.packs, interval_s=settings.interval_s,
                            backfill_s=settings.backfill_s, timeout_s=settings.timeout_s, token_file=settings.token_file,
                            tenant=settings.tenant)


def _kubernetes(settings: Any, known: Meanings, name: str) -> Any:
    from aiops.sources.kubernetes import KubernetesSource
    return KubernetesSource(name, kubeconfig=settings.kubeconfig, context=settings.context, namespaces=settings.namespaces)


_MAKERS: dict[str, Callable[[Any, Meanings, str], Any]] = {
    "host": _host, "nvml": _nvml, "logs": _logs, "prometheus": _prometheus, "kubernetes": _kubernetes}


def live_actuator(clock: Clock, ledger: Path, kubeconfig: Path | None, context: str | None) -> LiveActuator:
    """An actuator on the real cluster, with the ledger of intents; not started yet. Raises ConfigurationError."""
    from aiops.cluster.kubernetes import KubernetesCluster, connect
    from aiops.store.intents import Intents

    try:
        intents = Intents(ledger)
        cluster = KubernetesCluster(connect(kubeconfig, context), clock)
    except (OSError, Refused) as e:
        raise ConfigurationError(f"kubernetes: {e}") from None
    return LiveActuator(cluster, clock, intents, intents.interrupted(), intents.snapshots())


def receivers(config: Config, clock: Clock, page: str) -> list[Any]:
    """Slack and webhooks, not started yet. Raises ConfigurationError."""
    made: list[Any] = []
    folder = config.store / "outbox"
    for number, item in enumerate(config.sinks):
        try:
            if item.slack:
                made.append(_slack(item.slack, folder, clock, page))
            elif item.webhook:
                made.append(_webhook(item.webhook, folder, clock, f"webhook-{number}"))
        except ValueError as e:
            raise ConfigurationError(f"sinks[{number}]: {e}") from None
    return made


def _slack(settings: Any, folder: Path, clock: Clock, page: str) -> Sink:
    from aiops.sinks.slack import Slack
    if settings.webhook_env:
        url = os.environ.get(settings.webhook_env, "")
        if not url:
            raise ConfigurationError(f"sinks: slack: the variable {settings.webhook_env} is not set.")
        return Slack(folder, clock, url=url, page=page)
    if settings.webhook_file:
        return Slack(folder, clock, url=secret(settings.webhook_file), page=page)
    return Slack(folder, clock, token=secret(settings.token_file), channel=settings.channel, page=page)


def _webhook(settings: Any, folder: Path, clock: Clock, name: str) -> Sink:
    from aiops.sinks.webhook import Webhook
    return Webhook(folder, clock, settings.url, secret(settings.secret_file) if settings.secret_file else "", name)


def secret(path: Path) -> str:
    """A secret from a file, without the newline at its end. Raises ConfigurationError naming the file, never its content."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "is not text"
        raise ConfigurationError(f"{path}: the secret cannot be read: {why}.") from None
    if not text:
        raise ConfigurationError(f"{path}: is empty. Put the secret into it.")
    return text


