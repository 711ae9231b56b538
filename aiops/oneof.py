"""What sections of a configuration share: URLs, lists from the environment, and items with one key that says what they are."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, model_serializer, model_validator

from aiops.yamlfile import Strict


def _url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
        raise ValueError(f"{value!r} is not a URL. Write it like http://prometheus:9090.")
    if "@" in value.split("/")[2]:
        raise ValueError("the URL holds a password, which would end up in logs. Use a file for the secret.")
    return value


def hint(name: str, known: tuple[str, ...]) -> str:
    """` Did you mean 'x'?`, or all there is."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}."


def words(value: object) -> object:
    """`a,b` from the environment as a list."""
    return [w.strip() for w in value.split(",") if w.strip()] if isinstance(value, str) else value


Url = Annotated[str, AfterValidator(_url)]
Words = Annotated[list[str], BeforeValidator(words)]


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
