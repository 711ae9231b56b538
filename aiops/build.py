"""From configuration to parts: packs, policies, pipeline, sources, sinks. No thread is started here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from aiops import meaning, plugins, yamlfile
from aiops.alerting import Alerting
from aiops.cluster.actuator import LiveActuator
from aiops.generations import BandedGenerations, Generations, generations
from aiops.interfaces import Clock, Cluster, Refused, Sink
from aiops.maintenance import CONFIGURED, Maintenance
from aiops.masks import Masks
from aiops.meaning import Meanings
from aiops.models import Unusable
from aiops.pipeline import Pipeline
from aiops.policy.decide import PolicyBook
from aiops.policy.load import Policy, compile_document
from aiops.policy.load import load as load_policies
from aiops.schema import Chosen, Config, available, detector_name, detector_settings
from aiops.secretfile import Secret, SecretFile, header
from aiops.yamlfile import Problem, Problems
from correlators.correlate import Correlate

SHIPPED_POLICIES = Path(__file__).parents[1] / "policies"
DEFAULT_DETECTORS = ("baseline", "isolation_forest", "peers", "absence", "logs", "newcomer", "drift", "exhaustion")
Mode = Literal["observe", "ask", "act"]


class ConfigurationError(Exception):
    """Something that the configuration names cannot be used. The text names it and the remedy."""


def meanings(config: Config) -> Meanings:
    """The shipped packs and those of the configured folder. Raises Problems."""
    shipped = meaning.shipped()
    return Meanings((*shipped.packs, *meaning.load(config.packs).packs)) if config.packs else shipped


def meanings_from(texts: Mapping[str, str]) -> Meanings:
    """The shipped packs and those that a journal keeps as text: file name -> YAML. Raises Problems."""
    shipped = meaning.shipped()
    own = [yamlfile.validate(d, meaning.Pack) for file, text in sorted(texts.items()) for d in yamlfile.parse(text, file)]
    return Meanings((*shipped.packs, *own)) if own else shipped


def pack_texts(folder: Path | None) -> dict[str, str]:
    """The pack files of a folder as text: for the journal."""
    return {p.name: p.read_text(encoding="utf-8") for p in sorted(folder.glob("*.yaml"))} if folder else {}


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
    return {p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in files}


def pipeline(known: Meanings, book: Sequence[Policy], mode: Mode, detectors: Sequence[Chosen] = DEFAULT_DETECTORS,
             incidents: float = 1.0, per_s: float = 86_400.0, masks: Masks | None = None) -> Pipeline:
    """A pipeline that has seen nothing yet. Detectors that are not part of this version are left out.

    Raises ConfigurationError for settings that a detector does not understand.
    """
    return Pipeline(known, models(detectors), Alerting(incidents, per_s), Correlate(), PolicyBook(book, mode, known), masks)


def models(detectors: Sequence[Chosen]) -> list[Generations]:
    """The detectors that are installed, each with its models, the baseline first: others use what it expects.

    Raises ConfigurationError.
    """
    there = available(detectors)
    try:
        made = [generations(name, detector_settings(d)) for d in detectors if (name := detector_name(d)) in there]
        return sorted(made, key=lambda g: not isinstance(g, BandedGenerations))
    except Unusable as e:
        raise ConfigurationError(f"detectors: {e}.") from None


def masks(config: Config) -> Masks:
    """Masks with the windows of maintenance of the configuration."""
    return Masks([Maintenance(f"config-{n}", (m.match.entity,), m.when, m.match.namespace, m.reason, CONFIGURED)
                  for n, m in enumerate(config.maintenance)])


# ------------------------------------------------------------------------------------------------------- live parts
def warm(detectors: Sequence[Chosen]) -> None:
    """Load now what detectors would load in the middle of a step later on: a slow import would make steps late."""
    for name in available(detectors):
        getattr(plugins.load("detectors", name), "warm", lambda: None)()


def live_actuator(clock: Clock, ledger: Path, kubeconfig: Path | None, context: str | None,
                  awaited: Sequence[str], lease: tuple[str, str] | None = None) -> LiveActuator:
    """An actuator on the real cluster, with the ledger of intents; not started yet. Raises ConfigurationError.

    awaited: ids of actions that an earlier run decided, and of which no outcome was heard. lease: namespace and name of the
    one that the replicas share, where there may be several.
    """
    from aiops.cluster.checks import not_paused
    from aiops.cluster.kubernetes import KubernetesCluster, connect
    from aiops.cluster.ownership import hands_off
    from aiops.cluster.replicas import one_of_several
    from aiops.store.intents import Intents

    checks = [not_paused, hands_off]
    try:
        intents = Intents(ledger)
        several = one_of_several(clock, intents, lambda **given: connect(kubeconfig, context, **given), *lease) if lease else None
        cluster: Cluster = KubernetesCluster(several.api if several else connect(kubeconfig, context))
    except (OSError, Refused) as e:
        raise ConfigurationError(f"kubernetes: {e}") from None
    if several is None:
        return LiveActuator(cluster, clock, intents, awaited, checks)
    return LiveActuator(several.gated(cluster), clock, several.ledger, awaited, checks, office=several.office)


SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def lease(config: Config) -> tuple[str, str] | None:
    """Namespace and name of the Lease that decides who acts; None where nobody else could. Raises ConfigurationError."""
    given, source = config.leader_election, config.source("kubernetes")
    inside = bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and source and not (source.kubeconfig or source.context)
    if given.enabled is False or not (given.enabled or given.lease or inside):
        return None
    if given.lease:
        namespace, _, name = given.lease.partition("/")
        return namespace, name
    try:
        return SERVICE_ACCOUNT.read_text(encoding="utf-8").strip(), "aiops"
    except OSError:
        raise ConfigurationError("leaderElection: this does not run in a cluster, so the namespace of the lease is not known. "
                                 "Set leaderElection.lease to NAMESPACE/NAME, or enabled: false.") from None


def page_address(config: Config) -> str:
    """Where people reach the page, for links in messages: `page`, else `listen` where that is an address; else empty."""
    host, port = config.address
    if config.page or not port or re.fullmatch(r"0\.0\.0\.0|::|", host):
        return config.page or ""
    return f"http://{config.listen}/"


def has_console(config: Config) -> bool:
    """Whether what happens is printed: where it is asked for, and where nobody else is told."""
    return not config.sinks or any(item.kind == "console" for item in config.sinks)


def receivers(config: Config, clock: Clock) -> list[Any]:
    """Slack and webhooks, not started yet. Raises ConfigurationError."""
    made: list[Any] = []
    for number, item in enumerate(config.sinks):
        try:
            if item.slack:
                folder = config.store / "outbox" / (f"slack-{number}" if any(s.slack for s in config.sinks[:number]) else "")
                made.append(_slack(item.slack, folder, clock, page_address(config)))
            elif item.webhook:
                made.append(_webhook(item.webhook, config.store / "outbox", clock, f"webhook-{number}"))
        except ValueError as e:
            raise ConfigurationError(f"sinks[{number}]: {e}") from None
    return made


def _slack(settings: Any, folder: Path, clock: Clock, page: str) -> Sink:
    from aiops.sinks.http import check_url
    from aiops.sinks.slack import Slack
    way: dict[str, Any] = {}
    if settings.webhook_env:
        way["url"] = os.environ.get(settings.webhook_env, "")
        if not way["url"]:
            raise ConfigurationError(f"sinks: slack: the variable {settings.webhook_env} is not set. Set it to the URL.")
    elif settings.webhook_file:
        way["url"] = secret(settings.webhook_file, check_url)
    else:
        way |= {"token": secret(settings.token_file, header), "channel": settings.channel}
    return Slack(folder, clock, page=page, minimum=settings.minimum, **way)


def _webhook(settings: Any, folder: Path, clock: Clock, name: str) -> Sink:
    from aiops.sinks.webhook import Webhook, key
    secret_file = secret(settings.secret_file, key) if settings.secret_file else ""
    return Webhook(folder, clock, settings.url, secret_file, name, minimum=settings.minimum)


def secret(path: Path, check: Callable[[str], object] = lambda text: None) -> Secret:
    """A secret in a file, which may rotate. Raises ConfigurationError naming the file, never its content."""
    try:
        return SecretFile(path, check)
    except ValueError as e:
        raise ConfigurationError(str(e)) from None
