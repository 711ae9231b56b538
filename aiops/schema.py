"""What a configuration may say: one model a section, each checking itself. `aiops.config` reads files into them.

docs/configuration.md explains each key.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from aiops.quantities import Bytes, Duration
from aiops.windows import Once, When, entity_glob, format_moment, parse_moment, parse_weekly
from aiops.yamlfile import Strict

Mode = Literal["observe", "ask", "act"]
Severity = Literal["info", "warning", "critical"]
LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|\[::1\]")
PLANNED = ("exhaustion",)
"""Detectors of the contract that this version does not have: accepted, left out, and told by `aiops.unused`."""


def _url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
        raise ValueError(f"{value!r} is not a URL. Write it like http://prometheus:9090.")
    if "@" in value.split("/")[2]:
        raise ValueError("the URL holds a password, which would end up in logs. Use a file for the secret.")
    return value


def detector_names() -> tuple[str, ...]:
    """The detectors of this installation: the folder is the registry. Does not import them."""
    spec = importlib.util.find_spec("detectors")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return tuple(sorted(p.stem for f in folders for p in Path(f).glob("*.py") if not p.stem.startswith("_")))


Chosen = str | dict[str, dict[str, Any]]
"""A detector as the configuration names it: `baseline`, or with settings `{isolation_forest: {trees: 64}}`."""


def _detector(item: object) -> Chosen:
    """`logs:` without anything below means `logs`."""
    if isinstance(item, dict) and len(item) != 1:
        raise ValueError(f"one detector an item, found {', '.join(map(str, item)) or 'none'}. Begin each with its own dash.")
    name, given = next(iter(item.items())) if isinstance(item, dict) else (item, {})
    if not isinstance(name, str) or not isinstance(given, dict | None):
        raise ValueError(f"input should be a detector's name, alone or with a map of settings, got {item!r}.")
    known = detector_names()
    if name not in known and name not in PLANNED:
        raise ValueError(f"no detector {name!r}.{hint(name, known)}")
    return {name: given} if given else name


def detector_name(item: Chosen) -> str:
    """The name in an item of `detectors`."""
    return item if isinstance(item, str) else next(iter(item))


def detector_settings(item: Chosen) -> Mapping[str, Any]:
    """The settings in an item of `detectors`, {} for none."""
    return {} if isinstance(item, str) else next(iter(item.values()))


def available(items: Iterable[Chosen]) -> list[str]:
    """The names of those detectors that are installed, in the order given."""
    known = detector_names()
    return [name for name in map(detector_name, items) if name in known]


def _every_detector() -> list[Chosen]:
    return [*detector_names()]


def _some_available(items: list[Chosen]) -> list[Chosen]:
    names = [detector_name(item) for item in items]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice:
        raise ValueError(f"{twice!r} is named twice. Remove one of the two.")
    if not available(names):
        raise ValueError(f"none of these detectors is part of this version. Add one of {', '.join(detector_names())}.")
    return items


def hint(name: str, known: tuple[str, ...]) -> str:
    """` Did you mean 'x'?`, or all there is."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}."


def _words(value: object) -> object:
    """`a,b` from the environment as a list."""
    return [w.strip() for w in value.split(",") if w.strip()] if isinstance(value, str) else value


Url = Annotated[str, AfterValidator(_url)]
Moment = Annotated[float, BeforeValidator(parse_moment), PlainSerializer(format_moment)]
Words = Annotated[list[str], BeforeValidator(_words)]
Detectors = Annotated[list[Annotated[Chosen, BeforeValidator(_detector)]], BeforeValidator(_words),
                      AfterValidator(_some_available)]


class Prometheus(Strict):
    """Polls a Prometheus, or anything that speaks its API. `packs` None: every pack."""

    url: Url
    packs: Words | None = None
    interval_s: Duration = Field(default=15.0, alias="interval", gt=0)
    backfill_s: Duration = Field(default=14 * 86400.0, alias="backfill", ge=0)
    timeout_s: Duration = Field(default=30.0, alias="timeout", gt=0)
    token_file: Path | None = Field(default=None, alias="tokenFile")
    tenant: str = ""


class PodLogs(Strict):
    """The pods whose logs are followed."""

    selector: str = Field(min_length=1)


class Kubernetes(Strict):
    """Events, topology and logs of a cluster. Without `kubeconfig`: the service account, else `~/.kube/config`."""

    interval_s: Duration = Field(default=30.0, alias="interval", gt=0)
    events: bool = True
    logs: PodLogs | None = None
    namespaces: Words = Field(default=[])
    kubeconfig: Path | None = None
    context: str | None = None


class Host(Strict):
    """CPU, memory, disk and network of this machine."""

    interval_s: Duration = Field(default=2.0, alias="interval", gt=0)


class Nvml(Strict):
    """The NVIDIA GPUs of this machine."""

    interval_s: Duration = Field(default=2.0, alias="interval", gt=0)


class Logs(Strict):
    """Files that are followed. `paths` may hold wildcards; `entity` is whom the lines belong to."""

    paths: Words = Field(min_length=1)
    entity: str = Field(pattern=r"^[^/]+/[^/]*/.+$")


class RemoteWrite(Strict):
    """Samples that a Prometheus pushes. Not in this version: accepted, and told by `aiops.unused`."""


def _refuse(_: object) -> None:
    raise ValueError("not available in this version. Play recordings with 'aiops replay DIR --serve'.")


Recording = Annotated[None, BeforeValidator(_refuse)]


def _one_key(value: object) -> object:
    """`host` and `host:` both mean `host: {}`."""
    if isinstance(value, str):
        return {value: {}}
    if isinstance(value, dict):
        return {k: {} if v is None else v for k, v in value.items()}
    return value


class OneOf(Strict):
    """A map with exactly one key, which says what the item is."""

    @model_validator(mode="before")
    @classmethod
    def _shape(cls, value: object) -> object:
        if isinstance(value, str) and value not in cls.model_fields:
            raise ValueError(f"unknown {value!r}.{hint(value, tuple(cls.model_fields))}")
        value = _one_key(value)
        if isinstance(value, dict) and len(value) != 1:
            names, found = ", ".join(cls.model_fields), ", ".join(map(str, value)) or "none"
            raise ValueError(f"exactly one key is needed (one of {names}), found {found}.")
        return value

    @model_serializer
    def _only_what_it_is(self) -> dict[str, Any]:
        """Back into the one-key form, so that what was written down can be read again."""
        return {self.kind: self.settings}

    @property
    def kind(self) -> str:
        """The one key."""
        return next(iter(self.model_fields_set))

    @property
    def settings(self) -> Any:
        """What was given under it."""
        return getattr(self, self.kind)


class SourceItem(OneOf):
    prometheus: Prometheus | None = None
    remote_write: RemoteWrite | None = None
    kubernetes: Kubernetes | None = None
    host: Host | None = None
    nvml: Nvml | None = None
    logs: Logs | None = None
    recording: Recording = None


class Slack(Strict):
    """An incoming webhook (its URL in a file or a variable), or a bot token with a channel."""

    webhook_file: Path | None = Field(default=None, alias="webhookFile")
    webhook_env: str | None = Field(default=None, alias="webhookEnv")
    token_file: Path | None = Field(default=None, alias="tokenFile")
    channel: str = ""
    minimum: Severity = "warning"

    @model_validator(mode="after")
    def _one_way_in(self) -> Slack:
        given = [k for k in (self.webhook_file, self.webhook_env, self.token_file) if k is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of webhookFile, webhookEnv, tokenFile.")
        if self.token_file is not None and not self.channel:
            raise ValueError("tokenFile needs a channel. Add for example channel: \"#incidents\".")
        return self


class Webhook(Strict):
    """Every change of an incident as a signed POST."""

    url: Url
    secret_file: Path | None = Field(default=None, alias="secretFile")
    minimum: Severity = "info"


class Console(Strict):
    """One line for each change on stderr. Also without any sinks."""


class SinkItem(OneOf):
    slack: Slack | None = None
    webhook: Webhook | None = None
    console: Console | None = None


class Budget(Strict):
    """How many false incidents are accepted, over all series."""

    incidents: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    per_s: Duration = Field(default=86400.0, alias="per", gt=0)

    @property
    def per_day(self) -> float:
        return self.incidents * 86400.0 / self.per_s


class Topology(Strict):
    """Who depends on whom: from the cluster (needs a kubernetes source), from a file. `calls`: not in this version."""

    kubernetes: bool = True
    calls: bool = False
    file: Path | None = None


class MaintenanceMatch(Strict):
    """Whom a window covers: globs over the entity (`node//gpu-*`) and over its namespace."""

    entity: Annotated[str, AfterValidator(entity_glob)] = Field(default="*", min_length=1, max_length=500)
    namespace: str = Field(default="*", min_length=1, max_length=500)

    @model_validator(mode="after")
    def _somebody(self) -> MaintenanceMatch:
        if not self.model_fields_set:
            raise ValueError("names nobody. Give entity, namespace or both; entity: \"*\" is everybody.")
        return self


class Maintenance(Strict):
    """When people work on something: once (`from`, `until`), or every week in the wall time of `timezone` (UTC)."""

    match: MaintenanceMatch
    since: Moment | None = Field(default=None, alias="from")
    until: Moment | None = None
    weekly: str | None = None
    timezone: str | None = None
    reason: str = Field(default="", max_length=500)

    @model_validator(mode="after")
    def _one_time(self) -> Maintenance:
        if self.weekly is None and self.timezone is not None:
            raise ValueError("timezone belongs to weekly; from and until name their own.")
        if isinstance(when := self.when, Once) and not when.since < when.until:
            raise ValueError("until is not later than from.")
        return self

    @property
    def when(self) -> When:
        """The stretch of time. Raises ValueError where there is none, or more than one."""
        if self.weekly is not None and self.since is None and self.until is None:
            return parse_weekly(self.weekly, self.timezone or "UTC")
        if self.weekly is None and self.since is not None and self.until is not None:
            return Once(self.since, self.until)
        raise ValueError("give either from and until, or weekly.")


class Journal(Strict):
    """The ring in which everything that came in is kept."""

    max_bytes: Bytes = Field(default=2 * 2**30, alias="maxBytes", ge=2**20)
    keep_s: Duration = Field(default=7 * 86400.0, alias="keep", gt=0)


class Config(Strict):
    """Everything that can be set. Relative paths were made absolute by `load`."""

    api_version: Literal["aiops.io/v1"] = Field(default="aiops.io/v1", alias="apiVersion")
    kind: Literal["Config"] = "Config"
    mode: Mode = "observe"
    budget: Budget = Budget()
    sources: list[SourceItem] = Field(default=[], min_length=1)
    topology: Topology = Topology()
    detectors: Detectors = Field(default_factory=lambda: _every_detector())
    packs: Path | None = None
    policies: Path | None = None
    sinks: list[SinkItem] = Field(default=[])
    store: Path = Path("/var/lib/aiops")
    journal: Journal = Journal()
    maintenance: list[Maintenance] = Field(default=[], max_length=1000)
    interval_s: Duration | None = Field(default=None, alias="interval")
    page: Url | None = None
    token_file: Path | None = Field(default=None, alias="tokenFile")
    listen: str = "127.0.0.1:8750"

    @field_validator("sources")
    @classmethod
    def _something_arrives(cls, value: list[SourceItem]) -> list[SourceItem]:
        if all(item.kind == "remote_write" for item in value):
            raise ValueError("nothing would arrive: remote_write is not available in this version. Add another source.")
        return value

    @field_validator("listen")
    @classmethod
    def _safe_address(cls, value: str, info: ValidationInfo) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"{value!r} is not an address. Write host:port, for example 127.0.0.1:8750.")
        if not LOOPBACK.fullmatch(host) and info.data.get("token_file") is None:
            raise ValueError(f"{value} can be reached from other machines and there is no tokenFile. "
                             "Set tokenFile, or listen on 127.0.0.1.")
        return value

    @property
    def tick_s(self) -> float:
        """Seconds between two steps: `interval`, else the shortest interval of a source, 15 at most."""
        return self.interval_s or min(15.0, *(getattr(s.settings, "interval_s", 15.0) for s in self.sources), 15.0)

    @property
    def address(self) -> tuple[str, int]:
        """`listen` as host (without brackets) and port; port 0 takes a free one."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    def source(self, kind: str) -> Any:
        """The settings of the first source of a kind, or None."""
        return next((s.settings for s in self.sources if s.kind == kind), None)
