"""The CustomResourceDefinition of a RemediationPolicy, made from the models that files are checked against.

A structural schema: nothing is referred to, every node has a type, and what JSON Schema says with unions is said with
properties, enums and rules in CEL. Defaults are told and not written into objects: what a policy does is decided by the
program alone. Unknown keys are kept (not pruned): a misspelt `condition` that was silently dropped would be an action
without one. The program refuses them by name.
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiops.policy.schema import Spec
from aiops.quantities import WRITTEN_DURATION, format_duration

JSON = dict[str, Any]
GROUP, VERSION, PLURAL, KIND = "aiops.io", "v1", "remediationpolicies", "RemediationPolicy"
_KEPT = ("type", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "required",
         "description", "maxProperties")
_UNDERSTOOD = frozenset({*_KEPT, "title", "default", "$ref", "$defs", "anyOf", "oneOf", "const", "properties", "items", "format",
                         "additionalProperties", "discriminator", "exclusiveMinimum", "exclusiveMaximum", "uniqueItems"})
_NO_UNIT = {"rule": "type(self) == string || self == 0",
            "message": "a duration without a unit. Write for example 15s, 1h30m or 14d."}
_STATUS: JSON = {
    "type": "object", "description": "What the daemon says of it.", "properties": {
        "observedGeneration": {"type": "integer", "format": "int64", "description": "The version that this is about."},
        "mode": {"type": "string", "description": "The mode that it asks for, its default included."},
        "lastDecision": {"type": "string", "description": "The newest decision, as `refused Restart`."},
        "lastDecisionTime": {"type": "string", "format": "date-time"},
        "lastActionTime": {"type": "string", "format": "date-time", "description": "When it acted last."},
        "conditions": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], "items": {
                "type": "object", "required": ["type", "status", "lastTransitionTime", "reason", "message"], "properties": {
                    "type": {"type": "string", "maxLength": 316},
                    "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                    "reason": {"type": "string", "maxLength": 1024}, "message": {"type": "string", "maxLength": 32768},
                    "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                    "lastTransitionTime": {"type": "string", "format": "date-time"}}}}}}


def manifest() -> JSON:
    """The whole manifest, as plain data."""
    names = {"kind": KIND, "listKind": f"{KIND}List", "plural": PLURAL, "singular": KIND.lower(), "shortNames": ["rpol"],
             "categories": ["aiops"]}
    root = {"type": "object", "required": ["spec"], "description": "What may be done about a fault, and when.", "properties": {
        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
        "spec": structural(Spec.model_json_schema(by_alias=True)), "status": _STATUS}}
    version = {"name": VERSION, "served": True, "storage": True, "schema": {"openAPIV3Schema": root},
               "subresources": {"status": {}}, "additionalPrinterColumns": _columns()}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{PLURAL}.{GROUP}", "labels": {"app.kubernetes.io/name": "aiops"}},
            "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]}}


def _columns() -> list[JSON]:
    ready = '.status.conditions[?(@.type=="Ready")]'
    shown = {"Mode": ".status.mode", "Trigger": ".spec.trigger.type", "Ready": f"{ready}.status", "Reason": f"{ready}.reason"}
    wide = {"Metric": ".spec.trigger.metric", "Last": ".status.lastDecision", "Message": f"{ready}.message"}
    return [*({"name": name, "type": "string", "jsonPath": path} for name, path in shown.items()),
            *({"name": name, "type": "string", "jsonPath": path, "priority": 1} for name, path in wide.items()),
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]


def structural(schema: Mapping[str, Any]) -> JSON:
    """JSON Schema as pydantic writes it, as a structural schema. Raises ValueError where it says what that cannot."""
    return _node(schema, schema.get("$defs", {}), "$")


def _node(schema: Mapping[str, Any], defs: Mapping[str, Any], place: str) -> JSON:
    schema = _resolved(schema, defs)
    strange = schema.keys() - _UNDERSTOOD
    if strange:
        raise ValueError(f"{place}: a structural schema has no {', '.join(sorted(strange))}. Say it another way.")
    if schema.get("format") == "duration":
        written = {k: WRITTEN_DURATION[k] for k in ("anyOf", "pattern", "maxLength")}
        return _about(schema, {"x-kubernetes-int-or-string": True, **written, "x-kubernetes-validations": [_NO_UNIT]})
    if "oneOf" in schema:
        return _about(schema, _union([_resolved(s, defs) for s in schema["oneOf"]], schema["discriminator"]["propertyName"],
                                     defs, place))
    if "anyOf" in schema:
        return _about(schema, _either(schema["anyOf"], defs, place))
    out = {k: schema[k] for k in _KEPT if k in schema}
    if "const" in schema:
        out["enum"] = [schema["const"]]
    for name, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if name in schema:
            out |= {limit: schema[name], name: True}
    if "type" not in out:
        raise ValueError(f"{place}: has no type.")
    return _about(schema, out | _inside(schema, defs, place))


def _resolved(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a `$ref` means, with what stands beside it."""
    while "$ref" in schema:
        beside = {k: v for k, v in schema.items() if k != "$ref"}
        schema = {**defs[str(schema["$ref"]).rpartition("/")[2]], **beside}
    return schema


def _inside(schema: Mapping[str, Any], defs: Mapping[str, Any], place: str) -> JSON:
    """Properties, values of a map, items of a list."""
    if schema["type"] == "array":
        return {"items": _node(schema["items"], defs, f"{place}[]")}
    if schema["type"] != "object":
        return {}
    if "properties" in schema:
        parts = {k: _node(v, defs, f"{place}.{k}") for k, v in schema["properties"].items()}
        return {"properties": parts, "x-kubernetes-preserve-unknown-fields": True}
    values = schema.get("additionalProperties")
    if isinstance(values, Mapping):
        return {"additionalProperties": _node(values, defs, f"{place}.*")}
    return {"x-kubernetes-preserve-unknown-fields": True}


def _either(choices: list[Mapping[str, Any]], defs: Mapping[str, Any], place: str) -> JSON:
    """A value or none; a number or text."""
    real = [c for c in choices if c.get("type") != "null"]
    null = {"nullable": True} if len(real) < len(choices) else {}
    if len(real) == 1:
        return _node(real[0], defs, place) | null
    if {c.get("type") for c in real} == {"integer", "string"}:
        more = {k: c[k] for c in real for k in ("minimum", "maximum", "pattern", "minLength", "maxLength") if k in c}
        return {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}], **more, **null}
    raise ValueError(f"{place}: may be several things, which a structural schema cannot say.")


def _union(members: list[Mapping[str, Any]], tag: str, defs: Mapping[str, Any], place: str) -> JSON:
    """One object with the properties of all kinds, and a rule for each that not all have."""
    kinds = {m["properties"][tag]["const"]: m for m in members}
    properties: JSON = {tag: {"type": "string", "enum": list(kinds)}}
    rules = []
    for name in dict.fromkeys(k for m in members for k in m["properties"] if k != tag):
        having = [kind for kind, m in kinds.items() if name in m["properties"]]
        needing = [kind for kind, m in kinds.items() if name in m.get("required", ())]
        properties[name] = _node(kinds[having[0]]["properties"][name], defs, f"{place}.{name}")
        if len(having) < len(kinds):
            rules.append(_rule(f"!has(self.{name}) || {_is(tag, having)}", f"{name} belongs to {tag} {' or '.join(having)}."))
        if needing:
            rules.append(_rule(f"has(self.{name}) || !({_is(tag, needing)})", f"{' and '.join(needing)} needs {name}."))
    what = " ".join(f"{kind}: {m.get('description', '')}" for kind, m in kinds.items())
    return {"type": "object", "description": what, "properties": properties, "required": [tag],
            "x-kubernetes-preserve-unknown-fields": True, "x-kubernetes-validations": rules}


def _is(tag: str, kinds: list[str]) -> str:
    return " || ".join(f"self.{tag} == '{kind}'" for kind in kinds)


def _rule(rule: str, message: str) -> JSON:
    return {"rule": rule, "message": message}


def _about(schema: Mapping[str, Any], out: JSON) -> JSON:
    """With the description, and what holds where nothing is said."""
    texts = [str(out.get("description") or schema.get("description") or "")]
    default = schema.get("default")
    if default is not None and not isinstance(default, dict | list):
        said = format_duration(default) if schema.get("format") == "duration" else str(default).lower() \
            if isinstance(default, bool) else default
        texts.append(f"Default: {said}.")
    text = " ".join(t for t in texts if t)
    return ({"description": text} if text else {}) | {k: v for k, v in out.items() if k != "description"}
