"""Workloads and autoscalers of the Kubernetes API, with as much of their pod template as tells one rollout from another."""

from __future__ import annotations

import msgspec

from aiops.sources.kubernetes.objects import Condition, ManagedMeta, Part, Reference


class Named(Part):
    """A reference to a ConfigMap or Secret; which of the two fields is filled depends on where it stands."""

    name: str | None = None
    secret_name: str | None = None


class ValueFrom(Part):
    config_map_key_ref: Named | None = None
    secret_key_ref: Named | None = None


class Variable(Part):
    value_from: ValueFrom | None = None


class VariablesFrom(Part):
    config_map_ref: Named | None = None
    secret_ref: Named | None = None


class Projection(Part):
    config_map: Named | None = None
    secret: Named | None = None


class Projected(Part):
    sources: list[Projection] | None = None


class Volume(Part):
    config_map: Named | None = None
    secret: Named | None = None
    projected: Projected | None = None


class TemplateContainer(Part):
    image: str = ""
    env: list[Variable] | None = None
    env_from: list[VariablesFrom] | None = None


class TemplateSpec(Part):
    containers: list[TemplateContainer] | None = None
    init_containers: list[TemplateContainer] | None = None
    volumes: list[Volume] | None = None


class TemplateMeta(Part):
    annotations: dict[str, str] | None = None


class Template(Part):
    metadata: TemplateMeta = msgspec.field(default_factory=TemplateMeta)
    spec: TemplateSpec = msgspec.field(default_factory=TemplateSpec)


class WorkloadSpec(Part):
    replicas: int | None = None
    suspend: bool | None = None
    template: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))


class WorkloadStatus(Part):
    """The union of what Deployments, StatefulSets, DaemonSets, ReplicaSets and Jobs tell."""

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    updated_replicas: int = 0
    unavailable_replicas: int = 0
    current_revision: str = ""
    update_revision: str = ""
    desired_number_scheduled: int = 0
    updated_number_scheduled: int = 0
    number_available: int = 0
    number_unavailable: int = 0
    failed: int = 0
    conditions: list[Condition] | None = None


class Workload(Part):
    """A Deployment, StatefulSet, DaemonSet, ReplicaSet or Job."""

    metadata: ManagedMeta
    spec: WorkloadSpec = msgspec.field(default_factory=WorkloadSpec)
    status: WorkloadStatus = msgspec.field(default_factory=WorkloadStatus)


class AutoscalerSpec(Part):
    scale_target_ref: Reference = msgspec.field(default_factory=Reference)
    min_replicas: int | None = None
    max_replicas: int = 0
    metrics: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b""))


class AutoscalerStatus(Part):
    current_replicas: int = 0


class Autoscaler(Part):
    """A HorizontalPodAutoscaler."""

    metadata: ManagedMeta
    spec: AutoscalerSpec = msgspec.field(default_factory=AutoscalerSpec)
    status: AutoscalerStatus = msgspec.field(default_factory=AutoscalerStatus)
