"""What a configuration may say: one model a section, each checking itself. `aiops.config` reads files into them.

docs/configuration.md explains each key.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from aiops.inputs import SourceItem
from aiops.limits import Limits
from aiops.oneof import OneOf, Url, Words, hint, words
from aiops.quantities import Bytes, Duration
from aiops.windows import Once, When, entity_glob, format_moment, parse_moment, parse_weekly
from aiops.yamlfile import Strict

Mode = Literal["observe", "ask", "act"]
Severity = Literal["info", "warning", "critical"]
LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|\[::1\]")
PLANNED: tuple[str, ...] = ()
"""Detectors of the contract that this version does not have: accepted, left out, and told by `aiops.unused`."""


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


Moment = Annotated[float, BeforeValidator(parse_moment), PlainSerializer(format_moment)]
Detectors = Annotated[list[Annotated[Chosen, BeforeValidator(_detector)]], BeforeValidator(words),
                      AfterValidator(_some_available)]


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


class Callee(Strict):
    """Whom the action Webhook may call, by the name that policies use."""

    url: Url
    secret_file: Path | None = Field(default=None, alias="secretFile")


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
    """Who depends on whom: from the cluster (needs a kubernetes source), from the counters of meshes and traces, from a file."""

    kubernetes: bool = True
    calls: bool = True
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


def _folder(value: object) -> object:
    """`policies: FOLDER`."""
    return {"folder": value} if isinstance(value, str | Path) else {} if value is None else value


class PolicySources(Strict):
    """Where policies come from: files of `folder` (None: those that come with aiops), and RemediationPolicies of the cluster.

    beyond: namespaces whose RemediationPolicies may act outside of them, where their guards say so.
    """

    folder: Path | None = None
    kubernetes: bool = False
    beyond: Words = Field(default=[], max_length=100)


class SeriesLimit(Strict):
    """How many raw series may be watched at a time: each takes some 5 kB of memory."""

    max: int = Field(default=1_000_000, ge=1000, le=4_000_000)


class Journal(Strict):
    """The ring in which everything that came in is kept."""

    max_bytes: Bytes = Field(default=2 * 2**30, alias="maxBytes", ge=2**20)
    keep_s: Duration = Field(default=7 * 86400.0, alias="keep", gt=0)


def _many(text: object) -> object:
    """`1M`, `1k`, or a number."""
    m = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKM]?)", str(text).strip())
    if isinstance(text, bool) or not m:
        raise ValueError(f"{text!r} is not a number of tokens. Write for example 1M, 1k or 1000.")
    return float(m[1]) * {"": 1, "k": 1e3, "K": 1e3, "M": 1e6}[m[2]]


def _gpu_hour(value: object) -> object:
    """`gpuHour: 2.5` is a price for every GPU."""
    return {"default": value} if isinstance(value, int | float | str) else value


Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TokenPrice(Strict):
    """What so many (`per`) tokens cost that a model reads (`input`) and writes (`output`)."""

    input: Price
    output: Price
    per: Annotated[float, BeforeValidator(_many), Field(gt=0)] = 1e6

    @property
    def input_each(self) -> float:
        return self.input / self.per

    @property
    def output_each(self) -> float:
        return self.output / self.per


class Prices(Strict):
    """What GPUs cost an hour, by globs over what is known of them, and what tokens cost, by globs over models.

    Of several globs that fit the longest counts; `default` is for GPUs that none fits.
    """

    currency: str = Field(default="USD", min_length=1, max_length=10)
    gpu_hour: Annotated[dict[str, Price], BeforeValidator(_gpu_hour), Field(max_length=1000)] = Field(
        default={}, alias="gpuHour")
    tokens: dict[str, TokenPrice] = Field(default={}, max_length=1000)

    @property
    def currency_shown(self) -> str:
        """The currency; empty where nothing has a price."""
        return self.currency if self.gpu_hour or self.tokens else ""

    def of_gpu(self, names: Iterable[str]) -> float | None:
        """The price of an hour of a GPU that goes by these names; None where it has none."""
        found = _longest(self.gpu_hour.keys() - {"default"}, names)
        return self.gpu_hour.get(found or "default")

    def of_tokens(self, model: str) -> TokenPrice | None:
        found = _longest(self.tokens, [model])
        return self.tokens[found] if found else None


def _longest(globs: Iterable[str], names: Iterable[str]) -> str | None:
    known = list(names)
    fits = [g for g in globs if any(g == n or fnmatchcase(n, g) for n in known)]
    return max(fits, key=lambda g: (len(g), g), default=None)


def _share(text: object) -> object:
    """`99.9%`, or a number between 0 and 1."""
    share = text
    if isinstance(text, str):
        try:
            share = float(text.strip().removesuffix("%")) / (100.0 if text.strip().endswith("%") else 1.0)
        except ValueError:
            raise ValueError(f"{text!r} is not a share. Write 99.9% or 0.999.") from None
    if isinstance(share, int | float) and not 0 < share < 1:
        raise ValueError(f"{text} is not between 0 and 100 %. Write 99.9% or 0.999.")
    return share


class Slo(Strict):
    """An objective: the share (`objective`) of what is good over `window`.

    `signal` is the share that is bad (`http_error_rate`), or with `below` or `above` a level, in its own unit.
    """

    name: str = Field(min_length=1, max_length=100)
    signal: str = Field(min_length=1, max_length=500)
    entity: Annotated[str, AfterValidator(entity_glob)] = Field(default="*", min_length=1, max_length=500)
    objective: Annotated[float, BeforeValidator(_share), Field(gt=0, lt=1)]
    window_s: Duration = Field(default=30 * 86400.0, alias="window", ge=7 * 86400.0, le=90 * 86400.0)
    below: float | None = Field(default=None, allow_inf_nan=False)
    above: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_limit(self) -> Slo:
        if self.below is not None and self.above is not None:
            raise ValueError("give below or above, not both.")
        return self


class Audit(Strict):
    """The record of every decision, and of why nothing was done. `redact_ips`: without addresses of machines."""

    max_bytes: Bytes = Field(default=256 * 2**20, alias="maxBytes", ge=2**20)
    keep_s: Duration = Field(default=365 * 86400.0, alias="keep", gt=0)
    redact_ips: bool = Field(default=False, alias="redactIPs")


class Capsules(Strict):
    """How many incidents keep their part of the journal, and how much room they may take. None do where `keep` is 0."""

    max_bytes: Bytes = Field(default=2**30, alias="maxBytes", ge=2**20)
    keep: int = Field(default=200, ge=0, le=10_000)


class LeaderElection(Strict):
    """Of several replicas one acts. `enabled` None: where it runs in the cluster and may act. `lease`: NAMESPACE/NAME."""

    enabled: bool | None = None
    lease: Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9]{0,62}/[a-z0-9][-a-z0-9.]{0,200}$")] | None = None


def _configmap(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9.]*[a-z0-9])?", value):
        raise ValueError(f"{value!r} is not a ConfigMap. Write namespace/name, for example aiops/aiops-stop.")
    return value


class StopPlaces(Strict):
    """Who may stop everything beside `aiops stop`: a ConfigMap whose key `stop` says true, a file while it is there, or this."""

    enabled: bool = False
    config_map: Annotated[str, AfterValidator(_configmap)] | None = Field(default=None, alias="configMap")
    file: Path | None = None


class Config(Strict):
    """Everything that can be set. Relative paths were made absolute by `load`."""

    api_version: Literal["aiops.io/v1"] = Field(default="aiops.io/v1", alias="apiVersion")
    kind: Literal["Config"] = "Config"
    mode: Mode = "observe"
    budget: Budget = Budget()
    limits: Limits = Limits()
    stop: StopPlaces = StopPlaces()
    sources: list[SourceItem] = Field(default=[], min_length=1)
    topology: Topology = Topology()
    detectors: Detectors = Field(default_factory=lambda: _every_detector())
    packs: Path | None = None
    policies: Annotated[PolicySources, BeforeValidator(_folder)] = PolicySources()
    sinks: list[SinkItem] = Field(default=[])
    webhooks: dict[Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")], Callee] = Field(
        default={}, max_length=100)
    store: Path = Path("/var/lib/aiops")
    journal: Journal = Journal()
    series: SeriesLimit = SeriesLimit()
    prices: Prices = Prices()
    slos: list[Slo] = Field(default=[], max_length=100)
    capsules: Capsules = Capsules()
    audit: Audit = Audit()
    maintenance: list[Maintenance] = Field(default=[], max_length=1000)
    leader_election: LeaderElection = Field(default=LeaderElection(), alias="leaderElection")
    interval_s: Duration | None = Field(default=None, alias="interval")
    page: Url | None = None
    token_file: Path | None = Field(default=None, alias="tokenFile")
    token_files: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._@]{0,62}$")], Path] = Field(
        default={}, alias="tokenFiles", max_length=100)
    listen: str = "127.0.0.1:8750"

    @field_validator("sources")
    @classmethod
    def _one_receiver(cls, value: list[SourceItem]) -> list[SourceItem]:
        if sum(item.kind == "remote_write" for item in value) > 1:
            raise ValueError("remote_write is there twice, and there is one address to push to. Put the rules into one.")
        return value

    @field_validator("slos")
    @classmethod
    def _own_names(cls, value: list[Slo]) -> list[Slo]:
        names = [s.name for s in value]
        if twice := next((n for i, n in enumerate(names) if n in names[:i]), None):
            raise ValueError(f"{twice!r} is there twice. Give each objective a name of its own.")
        return value

    @field_validator("listen")
    @classmethod
    def _safe_address(cls, value: str, info: ValidationInfo) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"{value!r} is not an address. Write host:port, for example 127.0.0.1:8750.")
        if not LOOPBACK.fullmatch(host) and not (info.data.get("token_file") or info.data.get("token_files")):
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
