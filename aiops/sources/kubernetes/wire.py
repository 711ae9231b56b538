"""Lists and watches of the Kubernetes API as they come: what is around the objects.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import msgspec

from aiops.sources.kubernetes.objects import Meta, Part

METADATA = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
"""The media type of objects of which only the metadata is sent; {} is "List" or empty."""


class ListMeta(Part):
    """`continue_` asks for the next piece; empty with the last."""

    resource_version: str = ""
    continue_: str | None = msgspec.field(default=None, name="continue")


class Chunk(Part):
    """One piece of a list, its objects not decoded yet."""

    items: list[msgspec.Raw] | None = None
    metadata: ListMeta = msgspec.field(default_factory=ListMeta)


class Known(Part):
    """The part of any object that is needed to know which one it is."""

    metadata: Meta


class News(Part):
    """One line of a watch: `type` is ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."""

    type: str
    object: msgspec.Raw


class Status(Part):
    """Why a watch ended, in a line of type ERROR."""

    code: int = 0
    message: str | None = None
