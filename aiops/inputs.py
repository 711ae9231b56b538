"""What a configuration may say about where telemetry comes from: one model a kind of source (docs/configuration.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from aiops.oneof import OneOf, Url, Words
from aiops.quantities import Duration
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


class SourceItem(OneOf):
    prometheus: Prometheus | None = None
    remote_write: RemoteWrite | None = None
    kubernetes: Kubernetes | None = None
    host: Host | None = None
    nvml: Nvml | None = None
    logs: Logs | None = None
    recording: Recording = None
