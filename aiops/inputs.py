"""What a configuration may say about where telemetry comes from: one model a kind of source (docs/sources.md)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from aiops.oneof import OneOf, Url, Words, words
from aiops.quantities import Bytes, Duration
from aiops.remote_write.relabel import Action, Rule
from aiops.yamlfile import Strict


def _header(name: str) -> str:
    instead = {"authorization": "tokenFile, or username and passwordFile", "x-scope-orgid": "tenant"}.get(name.lower())
    if instead:
        raise ValueError(f"{name!r} is what {instead} sets. Use that.")
    return name


HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"), AfterValidator(_header)]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^([\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)?$")]


class Prometheus(Strict):
    """Polls a Prometheus, or anything that speaks its API. `packs` None: every pack.

    What it says of TLS is what Prometheus itself calls tls_config.
    """

    url: Url
    packs: Words | None = None
    interval_s: Duration = Field(default=15.0, alias="interval", gt=0)
    backfill_s: Duration = Field(default=14 * 86400.0, alias="backfill", ge=0)
    backfill_share: float = Field(default=0.5, alias="backfillShare", gt=0, le=1)
    timeout_s: Duration = Field(default=30.0, alias="timeout", gt=0)
    tenant: HeaderValue = ""
    token_file: Path | None = Field(default=None, alias="tokenFile")
    username: str = Field(default="", pattern="^[^:]*$")
    password_file: Path | None = Field(default=None, alias="passwordFile")
    ca_file: Path | None = Field(default=None, alias="caFile")
    cert_file: Path | None = Field(default=None, alias="certFile")
    key_file: Path | None = Field(default=None, alias="keyFile")
    server_name: str = Field(default="", alias="serverName")
    insecure_skip_verify: bool = Field(default=False, alias="insecureSkipVerify")
    headers: dict[HeaderName, HeaderValue] = {}
    header_files: dict[HeaderName, Path] = Field(default={}, alias="headerFiles")

    @model_validator(mode="after")
    def _go_together(self) -> Prometheus:
        """What only makes sense with, or without, something else."""
        if self.token_file and (self.username or self.password_file):
            raise ValueError("tokenFile and username are two ways in. Keep one.")
        if bool(self.username) != bool(self.password_file):
            raise ValueError("username and passwordFile belong together. Add the one that is missing.")
        if self.key_file and not self.cert_file:
            raise ValueError("keyFile is the key of a certificate. Add certFile.")
        tls = [k for k, given in (("caFile", self.ca_file), ("certFile", self.cert_file), ("serverName", self.server_name),
                                  ("insecureSkipVerify", self.insecure_skip_verify)) if given]
        if tls and self.url.startswith("http://"):
            raise ValueError(f"{tls[0]} has no effect with http://. Write the url with https://, or remove it.")
        return self


_TERM = r"\s*(!?\s*[\w./-]+|[\w./-]+\s*(==?|!=)\s*[\w.-]*|[\w./-]+\s+(in|notin)\s*\([\w.,\s-]*\))\s*"


def _selector(value: str) -> str:
    """By the grammar of https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors"""
    if not re.fullmatch(f"{_TERM}(,{_TERM})*", value):
        raise ValueError(f"{value!r} is no label selector. Write it like app=api, or app in (api, gateway).")
    return value


class PodLogs(Strict):
    """The pods whose logs are followed."""

    selector: Annotated[str, AfterValidator(_selector)]


class Kubernetes(Strict):
    """Changes, events, states, topology and logs of a cluster. Without `kubeconfig`: the service account, else `~/.kube/config`.

    `states` None: as far as nobody else brings them.
    """

    interval_s: Duration = Field(default=15.0, alias="interval", gt=0)
    events: bool = True
    states: bool | None = None
    secrets: bool = False
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


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{value!r} is not a time zone. Write an IANA name like Europe/Berlin.") from None
    return value


def _entity(value: str) -> str:
    if not re.fullmatch(r"[^/]+/[^/]*/.+", value):
        raise ValueError(f"{value!r} is no entity. Write kind/namespace/name, as service/shop/api or node//gpu-3.")
    return value


class Logs(Strict):
    """Files that are followed. `paths` may hold wildcards; `entity` is whom the lines belong to, if not what the path says.

    `multiline` joins the traces of Python, Java and Go programs; `timezone` is that of times that name none.
    """

    paths: Words = Field(min_length=1)
    entity: Annotated[str, AfterValidator(_entity)] | None = None
    multiline: bool = False
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"


class Loki(Strict):
    """The lines that a LogQL query selects. `tail`: by Loki's websocket, as they come in."""

    url: Url
    query: str = Field(min_length=1)
    interval_s: Duration = Field(default=10.0, alias="interval", gt=0)
    backfill_s: Duration = Field(default=60.0, alias="backfill", ge=0, le=3600)
    timeout_s: Duration = Field(default=30.0, alias="timeout", gt=0)
    limit: int = Field(default=2000, ge=1, le=100_000)
    tail: bool = False
    token_file: Path | None = Field(default=None, alias="tokenFile")
    ca_file: Path | None = Field(default=None, alias="caFile")
    tenant: HeaderValue = ""

    @model_validator(mode="after")
    def _go_together(self) -> Loki:
        if self.ca_file and self.url.startswith("http://"):
            raise ValueError("caFile has no effect with http://. Write the url with https://, or remove it.")
        return self


def _unit(value: str) -> str:
    if not re.fullmatch(r"[\w@:.\\-]{1,200}", value):
        raise ValueError(f"{value!r} is no unit of systemd. Write its full name, as kubelet.service.")
    return value


class Journald(Strict):
    """The systemd journal of this machine, or of `directory`. `units` empty: all. The kernel is always in it."""

    interval_s: Duration = Field(default=10.0, alias="interval", gt=0)
    units: Annotated[list[Annotated[str, AfterValidator(_unit)]], BeforeValidator(words)] = Field(default=[])
    priority: Literal["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"] = "info"
    directory: Path | None = None


class Otlp(Strict):
    """Logs and metrics that OpenTelemetry pushes to `/v1/logs` and `/v1/metrics` of `listen`."""


class Relabel(Strict):
    """A rule as in `write_relabel_configs` of Prometheus."""

    source_labels: Words = Field(default=[], alias="sourceLabels", max_length=64)
    separator: str = Field(default=";", max_length=16)
    regex: str = "(.*)"
    action: Action = "replace"
    target_label: str = Field(default="", alias="targetLabel", max_length=500)
    replacement: str = Field(default="$1", max_length=500)
    modulus: int = Field(default=0, ge=0)

    @property
    def rule(self) -> Rule:
        """What it does. Raises ValueError."""
        return Rule(self.action, tuple(self.source_labels), self.separator, self.regex, self.target_label, self.replacement,
                    self.modulus)

    @model_validator(mode="after")
    def _usable(self) -> Relabel:
        _ = self.rule
        return self


class RemoteWrite(Strict):
    """Samples that a Prometheus pushes to `/api/v1/write`."""

    write_relabel: list[Relabel] = Field(default=[], alias="writeRelabel", max_length=100)
    max_body: Bytes = Field(default=16 << 20, alias="maxBody", ge=1024, le=1 << 30)
    max_message: Bytes = Field(default=64 << 20, alias="maxMessage", ge=1024, le=1 << 30)
    max_labels: int = Field(default=64, alias="maxLabels", ge=1, le=256)
    max_age_s: Duration = Field(default=6 * 3600.0, alias="maxAge", gt=0)
    max_ahead_s: Duration = Field(default=600.0, alias="maxAhead", ge=0)


def _refuse(_: object) -> None:
    raise ValueError("not available in this version. Play recordings with 'aiops replay DIR --serve'.")


Recording = Annotated[None, BeforeValidator(_refuse)]


class SourceItem(OneOf):
    prometheus: Prometheus | None = None
    remote_write: RemoteWrite | None = None
    kubernetes: Kubernetes | None = None
    host: Host | None = None
    nvml: Nvml | None = None
    logs: Logs | None = None
    journald: Journald | None = None
    loki: Loki | None = None
    otlp: Otlp | None = None
    recording: Recording = None
