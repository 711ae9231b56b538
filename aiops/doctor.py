"""What the daemon can reach, and which rights it lacks. Reads only; one unnamed file proves the store writable."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from aiops import build, feeds, meaning, rbac, reach
from aiops.clock import WallClock
from aiops.findings import Finding, State, exists, files, secret
from aiops.inputs import Kubernetes, Prometheus
from aiops.rbac import Right
from aiops.schema import Config, Slack, Webhook
from aiops.secretfile import header
from aiops.sinks.http import check_url
from aiops.sinks.webhook import key
from aiops.sources.access import SourceError
from aiops.sources.prometheus.api import PromApi
from aiops.yamlfile import Problems

LATELY_S = 3600.0
NAMED = 5


def examine(config: Config, env: Mapping[str, str]) -> Iterator[Finding]:
    """All findings, one system after another."""
    yield from _store(config.store)
    if config.token_file:
        yield secret("token", config.token_file, header)
    for name, file in config.token_files.items():
        yield secret(f"token of {name}", file, header)
    for item in config.sources:
        if item.kind in _CHECKS:
            yield from _CHECKS[item.kind](item.settings, config)
    if config.topology.file:
        yield exists("topology", config.topology.file)
    for sink in config.sinks:
        if isinstance(sink.settings, Slack):
            yield _slack(sink.settings, env)
        elif isinstance(sink.settings, Webhook) and sink.settings.secret_file:
            yield secret("webhook", sink.settings.secret_file, key)
    for name, callee in config.webhooks.items():
        if callee.secret_file:
            yield secret(f"webhook {name}", callee.secret_file, key)


# ------------------------------------------------------------------------------------------------------ Prometheus
def prometheus(source: Prometheus) -> Iterator[Finding]:
    """Is it there, which version, and which metrics of the packs does it have."""
    way = feeds.prometheus_access(source)
    if faults := list(files("Prometheus", way)):
        yield from faults
        return
    api = PromApi(source.url, way, timeout_s=source.timeout_s, retries=0)
    try:
        version = api.version() or "a Prometheus API without build information"  # Mimir, Thanos, VictoriaMetrics
        yield Finding("Prometheus", "ok", f"{api.url}: {version}")
        yield from _coverage(source, api)
    except SourceError as e:
        yield Finding("Prometheus", "unreachable" if e.status == 0 and e.url == api.url else "problem", str(e))
    finally:
        api.close()


def _coverage(source: Prometheus, api: PromApi) -> Iterator[Finding]:
    """Per pack, what is there. Only what was scraped of late counts: names stay known for as long as their samples do."""
    now = WallClock().now() + api.skew_s
    have = api.names(now - LATELY_S, now)
    try:
        packs = [p for p in meaning.load(names=source.packs).packs if p.metrics]
    except Problems as e:
        yield Finding("metrics", "problem", str(e))
        return
    for pack in packs:
        wanted = {m for m, rule in pack.metrics.items() if not rule.ignore}
        missing = sorted(wanted - have)
        found = len(wanted) - len(missing)
        # Nothing of a pack that was asked for by name is a mistake; else it is a system that is not in use.
        state: State = "ok" if found else "problem" if source.packs else "info"
        text = f"{found} of {len(wanted)} metrics are there."
        if not found:
            text += " Is its exporter scraped?" if source.packs else " Not in use here."
        elif missing:
            more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
            text += f" Missing: {', '.join(missing[:NAMED])}{more}."
        yield Finding(f"pack {pack.pack}", state, text)


# ------------------------------------------------------------------------------------------------------ Kubernetes
def kubernetes(source: Kubernetes, acts: bool, policies: bool = False, stop: str | None = None,
               lease: str | None = None, used: Set[str] | None = None) -> Iterator[Finding]:
    """Is it there, and which rights are missing. `acts`: missing rights of remediations are a problem, of those in `used`
    (None: of all); `policies`: those for RemediationPolicies are asked about, too; `stop`: the ConfigMap that is to be obeyed;
    `lease`: NAMESPACE/NAME of the one that replicas share."""
    from kubernetes import client
    from kubernetes.config import ConfigException
    from urllib3.exceptions import HTTPError

    try:
        api = _api(source)
        version = client.VersionApi(api).get_code(_request_timeout=10)
    except (ConfigException, FileNotFoundError) as e:
        text = f"no way in: {str(e).rstrip('.')}. Set kubeconfig, or run it in the cluster."
        yield Finding("Kubernetes", "unreachable", text)
        return
    except (client.ApiException, HTTPError, OSError) as e:
        yield Finding("Kubernetes", "unreachable", f"{_short(e)}. Check the address and the credentials.")
        return
    yield Finding("Kubernetes", "ok", f"{api.configuration.host}: {version.git_version}")
    allowed = _reviewer(client.AuthorizationV1Api(api), source.namespaces)
    try:
        if policies:
            yield _rights("policies", rbac.POLICIES, allowed)
        yield _rights("read", rbac.READ | (rbac.SECRETS if source.secrets else frozenset()), allowed)
        for name, rights in rbac.actions().items():
            unused = "Not needed while it only observes." if not acts else ""
            unused = unused or ("" if used is None or name in used else "No policy uses it.")
            yield _rights(name, rights, allowed, unused)
        if stop:
            yield _stop(stop, client.AuthorizationV1Api(api))
        if lease:
            yield _leading(lease, client.AuthorizationV1Api(api))
    except (client.ApiException, HTTPError, OSError) as e:
        yield Finding("rights", "problem", f"{_short(e)}. The cluster does not say what is allowed.")


def _api(source: Kubernetes) -> Any:
    """A client from the kubeconfig, else the service account, else the user's kubeconfig; gives up after one try."""
    from kubernetes import client, config

    settings = client.Configuration()
    if not source.kubeconfig and os.environ.get("KUBERNETES_SERVICE_HOST"):
        config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
    else:
        file = str(source.kubeconfig) if source.kubeconfig else None
        config.load_kube_config(file, source.context, settings)  # type: ignore[no-untyped-call]
    settings.retries = 0
    return client.ApiClient(settings)


def _reviewer(api: Any, namespaces: list[str]) -> Callable[[Right], bool]:
    return lambda right: all(_may(api, *right, namespace) for namespace in namespaces or [""])


def _may(api: Any, group: str, resource: str, verb: str, namespace: str = "", name: str = "") -> bool:
    """Empty namespace: in all; empty name: whatever it is called."""
    from kubernetes import client

    plural, _, sub = resource.partition("/")
    attributes = client.V1ResourceAttributes(group=group, resource=plural, subresource=sub or None, verb=verb,
                                             namespace=namespace or None, name=name or None)
    body = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes))
    return bool(api.create_self_subject_access_review(body, _request_timeout=10).status.allowed)


def _leading(lease: str, api: Any) -> Finding:
    """Without these rights nothing is carried out."""
    namespace, _, called = lease.partition("/")
    missing = _missing(rbac.leader(called), namespace, api)
    if not missing:
        return Finding("rights: leader", "ok", f"the lease {lease} and its ledger may be kept.")
    text = f"missing in {namespace}: {', '.join(missing)}. Nothing is carried out without them. Apply deploy/actions/leader.yaml."
    return Finding("rights: leader", "problem", text)


def _stop(stop: str, api: Any) -> Finding:
    """To obey the one ConfigMap, and to write it."""
    namespace, _, name = stop.partition("/")
    missing = _missing(rbac.stopper(name), namespace, api)
    if not missing:
        return Finding("rights: stop", "ok", f"ConfigMap {stop} may be read and written.")
    without = "no action is done" if any(m.startswith("get ") for m in missing) else "`aiops stop` stops this replica only"
    return Finding("rights: stop", "problem", f"missing in {namespace}: {', '.join(missing)}. Until that is granted {without}. "
                   "Apply deploy/role-stop.yaml with that name.")


def _missing(rights: Mapping[Right, str], namespace: str, api: Any) -> list[str]:
    """Those of named objects (empty: of any) in a namespace that are not granted, in words."""
    return [f"{verb} {resource} {name}".rstrip() for (group, resource, verb), name in rights.items()
            if not _may(api, group, resource, verb, namespace, name)]


def _shared(config: Config) -> str | None:
    """The lease that the replicas share, where this one may act."""
    try:
        found = build.lease(config) if config.mode != "observe" else None
    except build.ConfigurationError:
        return None  # the daemon says so at its start
    return "/".join(found) if found else None


def _used(config: Config) -> Set[str] | None:
    """The types of action that the policies in files use; None where the cluster may bring others."""
    if config.policies.kubernetes:
        return None
    try:
        found = build.policies(config.policies.folder, meaning.shipped())
    except (Problems, build.ConfigurationError, OSError):
        return None  # `aiops check` and the daemon's start say so
    return {step.type for policy in found for step in policy.steps}


def _rights(name: str, rights: frozenset[Right], allowed: Callable[[Right], bool], unneeded: str = "") -> Finding:
    """unneeded: why it does no harm where some of them are missing."""
    missing = [f"{verb} {resource}{'.' + group if group else ''}" for group, resource, verb in sorted(rights)
               if not allowed((group, resource, verb))]
    if not missing:
        return Finding(f"rights: {name}", "ok", f"all {len(rights)} are granted.")
    remedy = unneeded or f"Bind ClusterRole aiops-{rbac.kebab(name)} (deploy/)."
    return Finding(f"rights: {name}", "info" if unneeded else "problem", f"missing: {', '.join(missing)}. {remedy}")


def _short(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return f"HTTP {error.status} {reason}" if getattr(error, "status", None) else str(reason).rstrip(".")  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------------ this machine
def _store(folder: Path) -> Iterator[Finding]:
    here = folder
    while not here.exists() and here != here.parent:
        here = here.parent
    try:
        with TemporaryFile(dir=here):
            yield Finding("store", "ok", f"{folder}: writable" if here == folder else f"{folder}: will be made")
    except OSError as e:
        text = f"{here}: {(e.strerror or str(e)).lower()}. Set store to a folder that can be written."
        yield Finding("store", "problem", text)


def _slack(slack: Slack, env: Mapping[str, str]) -> Finding:
    if slack.webhook_env:
        there = bool(env.get(slack.webhook_env, "").strip())
        text = f"{slack.webhook_env}: {'set' if there else 'is not set.'}"
        return Finding("Slack", "ok" if there else "problem", text)
    if slack.webhook_file:
        return secret("Slack", slack.webhook_file, check_url)
    return secret("Slack", slack.token_file, header) if slack.token_file else Finding("Slack", "problem", "no secret is named.")


_CHECKS: dict[str, Callable[[Any, Config], Iterator[Finding]]] = {
    "prometheus": lambda s, _: prometheus(s),
    "kubernetes": lambda s, c: kubernetes(s, c.mode != "observe", c.policies.kubernetes, c.stop.config_map,
                                          _shared(c), _used(c)),
    "loki": lambda s, _: reach.loki(s), "journald": lambda s, _: reach.journald(s), "logs": lambda s, _: reach.log_files(s),
    "otlp": lambda _, c: reach.otlp(c.listen, bool(c.token_file or c.token_files)),
    "remote_write": lambda _, c: reach.remote_write(c.listen, bool(c.token_file or c.token_files)),
    "nvml": lambda *_: reach.nvml(), "host": lambda *_: reach.host()}
