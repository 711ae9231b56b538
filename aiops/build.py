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
from aiops.cluster.brake import Brake, Said, StopMap, stop_data, stop_in, stop_of
from aiops.cluster.calls import Calls, WithCalls
from aiops.cluster.executor import Check
from aiops.cluster.transport import Api
from aiops.generations import BandedGenerations, Generations, generations
from aiops.interfaces import Clock, Cluster, Judge, Refused, Sink
from aiops.kinds import kind_of
from aiops.limits import Limits
from aiops.maintenance import CONFIGURED, Maintenance
from aiops.masks import Masks
from aiops.meaning import Meanings
from aiops.models import Unusable
from aiops.pipeline import Pipeline
from aiops.policy.decide import PolicyBook
from aiops.policy.load import Policy
from aiops.policy.load import load as load_policies
from aiops.policy.texts import Compiler, placed
from aiops.policy.texts import read as read_policies
from aiops.schema import Callee, Chosen, Config, available, detector_name, detector_settings
from aiops.secretfile import Secret, SecretFile, header
from aiops.slo import Slo
from aiops.types import Command
from aiops.yamlfile import Problems
from correlators.correlate import Correlate
from correlators.topology import Topology

SHIPPED_POLICIES = Path(__file__).parents[1] / "policies"
DEFAULT_DETECTORS = ("baseline", "isolation_forest", "peers", "absence", "logs", "newcomer", "young", "ceased", "drift",
                     "exhaustion")
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


def policies_from(texts: Mapping[str, str], known: Meanings, beyond: Sequence[str] = (),
                  folder: Path | None = None) -> tuple[Policy, ...]:
    """Policies from texts, as a journal keeps them (`aiops.policy.texts`). Raises Problems.

    beyond: namespaces whose custom resources may act outside of them. folder: of the files, where problems are to name it.
    """
    compiled = Compiler(known, beyond)(texts)
    if compiled.problems:
        raise Problems(p if folder is None else placed(p, folder) for found in compiled.problems.values() for p in found)
    return compiled.policies


def policy_texts(folder: Path | None) -> dict[str, str]:
    """The policy files of a folder, or of the program, as text. Raises Problems where they cannot be read."""
    if folder is None and not SHIPPED_POLICIES.is_dir():
        return {}
    return read_policies(folder or SHIPPED_POLICIES)


def pipeline(known: Meanings, book: Sequence[Policy], mode: Mode, detectors: Sequence[Chosen] = DEFAULT_DETECTORS,
             incidents: float = 1.0, per_s: float = 86_400.0, masks: Masks | None = None,
             beyond: Sequence[str] = (), calls: bool = True, slos: Sequence[Slo] = ()) -> Pipeline:
    """A pipeline that has seen nothing yet. Detectors that are not part of this version are left out. calls: whether call metrics
    say who calls whom.

    Raises ConfigurationError for settings that a detector does not understand.
    """
    return Pipeline(known, models(detectors), Alerting(incidents, per_s), Correlate(), PolicyBook(book, mode, known, beyond),
                    masks, Topology(calls), slos)


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


def slos(config: Config) -> list[Slo]:
    """The objectives of the configuration."""
    return [Slo(s.name, s.signal, s.objective, s.window_s, s.entity, s.below, s.above) for s in config.slos]


# ------------------------------------------------------------------------------------------------------- live parts
def warm(detectors: Sequence[Chosen]) -> None:
    """Load now what detectors would load in the middle of a step later on: a slow import would make steps late."""
    for name in available(detectors):
        getattr(plugins.load("detectors", name), "warm", lambda: None)()


def live_actuator(clock: Clock, ledger: Path, kubeconfig: Path | None, context: str | None,
                  awaited: Sequence[str], limits: Limits, brake: Brake, stop: str | None = None,
                  webhooks: Mapping[str, Callee] | None = None, lease: tuple[str, str] | None = None,
                  judge: Judge | None = None, tell: Callable[[Command], None] = lambda command: None) -> LiveActuator:
    """An actuator on the real cluster, with the ledger of intents; not started yet. Raises ConfigurationError.

    awaited: ids of actions that an earlier run decided, and of which no outcome was heard. stop: the ConfigMap that may stop
    all. webhooks: whom actions may call. lease: namespace and name of the one that replicas share, where there may be several.
    judge: who decides; tell: how it hears of the other replicas.
    """
    from aiops.cluster.checks import not_paused
    from aiops.cluster.kubernetes import KubernetesCluster, connect
    from aiops.cluster.ownership import hands_off
    from aiops.cluster.quiet import Quiet
    from aiops.cluster.radius import Radius
    from aiops.cluster.replicas import one_of_several
    from aiops.store.intents import Intents

    try:
        intents = Intents(ledger)
        several = one_of_several(clock, intents, lambda **given: connect(kubeconfig, context, **given), *lease,
                                 judge.about if judge else lambda action: None) if lease else None
        api = several.api if several else connect(kubeconfig, context, quiet=Quiet(clock.monotonic))
        cluster: Cluster = WithCalls(KubernetesCluster(api), calls(webhooks or {}, clock))
    except (OSError, Refused) as e:
        raise ConfigurationError(f"kubernetes: {e}") from None
    said: list[Check] = [StopMap(f"configmap/{stop}")] if stop else []
    checks: list[Check] = [*said, not_paused, hands_off, Radius(limits, clock.monotonic)]
    if several is None:
        return LiveActuator(cluster, clock, intents, awaited, checks, gate=brake.gate)
    return LiveActuator(several.gated(cluster), clock, several.ledger, awaited, checks, gate=brake.gate, office=several.office,
                        judge=judge, tell=tell)


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


def stop_places(config: Config) -> dict[str, Callable[[], Said | None]]:
    """Where others may say stop, by the name under which it is shown. Raises ConfigurationError."""
    places: dict[str, Callable[[], Said | None]] = {"the configuration": lambda: None}
    if config.stop.enabled:
        places["the configuration"] = lambda: Said(False, "stop.enabled")
    file, name = config.stop.file, config.stop.config_map
    if file:
        places[f"the file {file}"] = lambda: stop_in(file)
    if name:
        from aiops.cluster.kubernetes import KubernetesCluster

        cluster = KubernetesCluster(_stop_api(config))
        places[f"configmap {name}"] = lambda: stop_of(cluster.get(f"configmap/{name}"))
    return places


def stop_for_all(config: Config) -> tuple[str, Callable[[Command], None]] | None:
    """Where `aiops stop` is written so that all replicas obey it: its name among the places, and what writes it.

    None where no ConfigMap is configured. Raises ConfigurationError; writing raises Retry, Refused or Ambiguous.
    """
    if not config.stop.config_map:
        return None
    from aiops.cluster.transport import Missing

    api, (namespace, _, name) = _stop_api(config), config.stop.config_map.partition("/")
    at = kind_of("configmap")

    def write(command: Command) -> None:
        body = {"data": stop_data(command)}
        try:
            api.patch(at.path(namespace, name), body, trial=False)
        except Missing:
            api.post(at.path(namespace), {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **body})
    return f"configmap {config.stop.config_map}", write


def _stop_api(config: Config) -> Api:
    from aiops.cluster.kubernetes import connect

    kubernetes = config.source("kubernetes")
    try:
        return connect(kubernetes and kubernetes.kubeconfig, kubernetes and kubernetes.context, (2.0, 5.0))
    except (OSError, Refused) as e:
        raise ConfigurationError(f"stop.configMap: {e}") from None


def calls(webhooks: Mapping[str, Callee], clock: Clock) -> Calls:
    """The endpoints that the action Webhook may call. Raises ConfigurationError where a secret cannot be read."""
    from aiops.sinks.calls import Endpoint, WebhookCalls
    from aiops.sinks.webhook import key
    return WebhookCalls({name: Endpoint(w.url, secret(w.secret_file, key) if w.secret_file else "")
                         for name, w in webhooks.items()}, clock)


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


def tokens(config: Config) -> dict[str, Secret]:
    """The tokens that have a name. Raises ConfigurationError, also where two of them are the same."""
    made = {name: secret(path, header) for name, path in config.token_files.items()}
    for name, one in made.items():
        same = [other for other in made if other < name and made[other]() == one()]
        if same:
            raise ConfigurationError(f"tokenFiles: {same[0]} and {name} have the same token: nobody can tell them apart. "
                                     "Give each one of their own.")
    return made


def secret(path: Path, check: Callable[[str], object] = lambda text: None) -> Secret:
    """A secret in a file, which may rotate. Raises ConfigurationError naming the file, never its content."""
    try:
        return SecretFile(path, check)
    except ValueError as e:
        raise ConfigurationError(str(e)) from None
