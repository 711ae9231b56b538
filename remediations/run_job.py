"""RunJob: run a runbook container once, or the job of a CronJob, and wait until it has ended. Undone by deleting the Job.

The pod runs as a user without rights: no token of the API, no root, no capabilities, a read-only root with a writable /tmp.
It is never tried twice (`backoffLimit: 0`) and killed after `timeout`. The outcome is that of the Job; a failed one is left to
be looked at for `keep`. What the container changed is not undone. Fails where the image needs root, or more than 512 MiB.
A CronJob's job keeps the rights that its own template gives it.
https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, model_validator

from aiops.changes import Change, Object, annotations_of, create, value_at
from aiops.interfaces import Cluster, Failed, Plan, Refused
from aiops.kinds import parts
from aiops.quantities import Duration, format_duration
from aiops.types import Action
from remediations._jobs import ended
from remediations._targets import Label, Name, OneOf, Pairs, looked_up, number, values_in_bounds

NOTE = "aiops.io/action"
NOBODY = 65532
ASKS = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9._/:-]{0,250}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})")


def _image(value: str) -> str:
    if not _IMAGE.fullmatch(value):
        raise ValueError(f"{value!r} is no image with a version. Write for example registry/runbook:1.4, or with @sha256:….")
    if value.endswith(":latest"):
        raise ValueError(f"{value!r} may be another program tomorrow. Name a version or a digest.")
    return value


def _between(least: float, most: float) -> AfterValidator:
    def check(seconds: float) -> float:
        if not least <= seconds <= most:
            raise ValueError(f"{format_duration(seconds)} is not between {format_duration(least)} and {format_duration(most)}.")
        return seconds
    return AfterValidator(check)


Word = Annotated[str, Field(max_length=4000)]


class RunJobTarget(OneOf):
    """`job`: what the runbook is called, with an `image`; or `cronjob`: whose job is run. `keep`: how long it stays after."""

    kinds: ClassVar[tuple[str, ...]] = ("job", "cronjob")
    job: Name | None = None
    cronjob: Name | None = None
    image: Annotated[str, AfterValidator(_image)] | None = None
    command: Annotated[tuple[Word, ...], Field(max_length=100)] = ()
    args: Annotated[tuple[Word, ...], Field(max_length=100)] = ()
    env: Annotated[Pairs, AfterValidator(values_in_bounds)] = {}
    service_account: Annotated[Label, Field(alias="serviceAccountName")] = "default"
    timeout: Annotated[Duration, _between(10, 540)] = 300.0
    keep: Annotated[Duration, _between(60, 604800)] = 3600.0

    @model_validator(mode="after")
    def _one_source(self) -> RunJobTarget:
        own = ("image", "command", "args", "env", "service_account")
        if self.cronjob is not None and any(name in self.model_fields_set for name in own):
            raise ValueError("a cronjob brings its own image, command, args, env and serviceAccountName. Leave them out.")
        if self.cronjob is None and self.image is None:
            raise ValueError("image is missing. Name the container that the job runs, or a cronjob.")
        return self

    def params(self) -> Mapping[str, object]:
        bounds = {"timeout_s": int(self.timeout), "keep_s": int(self.keep)}
        if self.cronjob is not None:
            return bounds
        return {"image": self.image, "command": list(self.command), "args": list(self.args), "env": dict(self.env),
                "serviceAccountName": self.service_account, **bounds}


class RunJob:
    """Run a container to its end."""

    target: ClassVar = RunJobTarget
    disruptive: ClassVar[bool] = False
    reversible: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, object], ...]] = (
        {"job": "rebuild-index", "image": "runbooks/index:1.4", "args": ["--all"], "env": {"TARGET": "api"}},
        {"cronjob": "nightly", "timeout": "2m"})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset({
        ("batch", "jobs", "get"), ("batch", "jobs", "create"), ("batch", "jobs", "delete"), ("batch", "cronjobs", "get"),
    })

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        _, namespace, name = parts(action.target)
        target = f"job/{namespace}/aiops-{action.id}"
        job = cluster.get(target)
        text = f"Run {name} as {target}."
        if job is None:
            return Plan(text, (_created(action, target, cluster),), f"{target} has not ended yet")
        if annotations_of(job).get(NOTE) != action.id:
            raise Refused(f"{target} is there already, and was made by somebody else.")
        how = ended(job)
        if how == "Failed":
            raise Failed(f"{target} failed: {_why(job)}. Its log says more.")
        return Plan(text, (), "" if how else f"{target} has not ended yet")


def _created(action: Action, target: str, cluster: Cluster) -> Change:
    kind, namespace, name = parts(action.target)
    spec = _of_cronjob(looked_up(cluster, action.target)) if kind == "cronjob" else _of_image(action)
    spec |= {"backoffLimit": 0, "activeDeadlineSeconds": number(action, "timeout_s", 300), "suspend": False,
             "ttlSecondsAfterFinished": number(action, "keep_s", 3600)}
    marks = {"labels": {NOTE: action.id, "app.kubernetes.io/managed-by": "aiops"},
             "annotations": {NOTE: action.id, "aiops.io/incident": action.incident, "aiops.io/runbook": name}}
    return create(target, {"apiVersion": "batch/v1", "kind": "Job", "spec": spec,
                           "metadata": {"name": parts(target)[2], "namespace": namespace, **marks}})


def _of_cronjob(one: Object) -> Object:
    spec: Object = copy.deepcopy(value_at(one, ("spec", "jobTemplate", "spec")) or {})
    return spec


def _of_image(action: Action) -> Object:
    given: Any = action.params
    env = {"AIOPS_ACTION": action.id, "AIOPS_INCIDENT": action.incident, **(given.get("env") or {})}
    container = {
        "name": "runbook", "image": given["image"], "command": given.get("command") or None, "args": given.get("args") or None,
        "env": [{"name": k, "value": v} for k, v in env.items()], "resources": ASKS,
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}  # noqa: S108 - inside the container
    pod = {"restartPolicy": "Never", "serviceAccountName": given.get("serviceAccountName", "default"),
           "automountServiceAccountToken": False, "enableServiceLinks": False,
           "securityContext": {"runAsNonRoot": True, "runAsUser": NOBODY, "seccompProfile": {"type": "RuntimeDefault"}},
           "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
           "containers": [{k: v for k, v in container.items() if v is not None}]}
    return {"template": {"metadata": {"labels": {NOTE: action.id}}, "spec": pod}}


def _why(job: Object) -> str:
    failed: Object = next((c for c in value_at(job, ("status", "conditions")) or [] if c.get("type") == "Failed"), {})
    return _short(f"{failed.get('reason', '')} {failed.get('message', '')}") or "no reason given"


def _short(text: str) -> str:
    return " ".join(text.split())[:200].rstrip(".")
