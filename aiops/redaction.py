"""Secrets out of texts that are kept or shown: what was matched becomes `***`, `[e-mail]` or `[ip]`.

Always: passwords, tokens and keys behind their name, `Authorization` and cookies, credentials in addresses, the well-known
forms of tokens (JWT, AWS, GitHub, Slack, Google, GitLab, Hugging Face, OpenAI), private keys in PEM form, and e-mail
addresses. By option: IP addresses. This is a list of what is known to be secret, so it can miss what it does not know;
`aiops capsule export --redact` goes the other way round (aiops/capsules/names.py). Pure functions of the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)")
IPV6 = re.compile(r"(?<![\w:])(?=[0-9a-fA-F:]*(?:::|[a-fA-F]))(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])")
EMAIL = re.compile(r"[\w.+\-]{1,64}@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)+")
GONE = "***"
MOST_CHARS = 4000
"""A text that is longer is cut: what is kept must not grow with what somebody sends."""

REMEMBERED, SHORT = 8192, 120
"""Names of fields and of things come again and again."""

_SECRETIVE = (r"(?:pass(?:word|wd|phrase)|pwd|secret|credentials?|api[_-]?key|access[_-]?key(?:[_-]?id)?"
                r"|(?:private|secret|signing|encryption|account|shared)[_-]?key|session[_-]?id)")
_TOKENS = r"(?:token|jwt)"
_IS = r"[\"']?\s{0,9}(?:=>|:=|[=:])\s{0,9}"
_VALUE = r"(?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s&'\",;}\])]+)"
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)", re.DOTALL), GONE),
    (re.compile(r"(://)[^/\s@]+@"), rf"\1{GONE}@"),
    (re.compile(r"(?i:\b((?:proxy-)?authorization[\"']?\s{0,9}[:=]\s{0,9}[\"']?)(?:(?:bearer|basic|digest|token|negotiate|apikey)"
                r"\s+)?[^\s\"',;]+)"), rf"\1{GONE}"),
    (re.compile(r"(?i:\b((?:set-)?cookie[\"']?\s{0,9}:\s{0,9}))[^\r\n]+"), rf"\1{GONE}"),
    (re.compile(r"(?i:\b(bearer\s+))[^\s\"',;]{6,}"), rf"\1{GONE}"),
    (re.compile(r"(?i:([?&](?:sig|signature|x-amz-signature|x-amz-credential|key|code)=))[^\s&\"']+"), rf"\1{GONE}"),
    (re.compile(rf"(?i:({_SECRETIVE}{_IS}))(?![*]){_VALUE}"), rf"\1{GONE}"),
    (re.compile(rf"(?i:(--[a-z0-9\-]{{0,40}}(?:{_SECRETIVE}|{_TOKENS})\s+)){_VALUE}"), rf"\1{GONE}"),
    (re.compile(rf"(?i:({_TOKENS}{_IS}))(?!\"?[+-]?\d+(?:\.\d+)?(?![\w.])){_VALUE}"), rf"\1{GONE}"),
    (re.compile(r"\beyJ[\w\-]{6,}\.[\w\-]{6,}(?:\.[\w\-]*)?"), GONE),
    (re.compile(r"\b(?:A[KS]IA[A-Z0-9]{16}|gh[opsur]_\w{20,}|github_pat_\w{20,}|glpat-[\w\-]{15,}|xox[abeoprs]-[\w\-]{8,}"
                r"|AIza[\w\-]{30,}|hf_[A-Za-z0-9]{20,}|sk-[\w\-]{16,})"), GONE),
    (EMAIL, "[e-mail]"),
)
_SECRET_KEY = re.compile(rf"(?i:.*(?:{_SECRETIVE}|{_TOKENS}|authorization|cookie))")
_HINTS = ("pass", "pwd", "secret", "credential", "key", "session", "token", "jwt", "authorization", "cookie", "bearer", "://",
          "sig=", "signature", "code=", "eyj", "akia", "asia", "gho_", "ghp_", "ghs_", "ghu_", "ghr_", "github_pat", "glpat",
          "xox", "aiza", "hf_", "sk-", "@")
"""Without any of these no rule finds anything: most texts are done with a look."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


class Redactor:
    """`text` and `value` give back what may be kept. ips: addresses of machines go as well."""

    def __init__(self, ips: bool = False) -> None:
        self._known = lru_cache(REMEMBERED)(self._without)
        self._addresses = ((IPV6, "[ip]"), (IPV4, "[ip]")) if ips else ()

    def text(self, text: str) -> str:
        """One line without control characters, cut after MOST_CHARS."""
        return self._known(text) if len(text) < SHORT else self._without(text)

    def _without(self, text: str) -> str:
        text = text[:2 * MOST_CHARS]  # a secret that the cut goes through is still seen as one
        low = text.lower()
        rules = _RULES if any(hint in low for hint in _HINTS) else ()
        for pattern, instead in (*rules, *self._addresses):
            text = pattern.sub(instead, text)
        text = text if text.isprintable() else _CONTROL.sub(" ", text)
        return text if len(text) <= MOST_CHARS else text[:MOST_CHARS - 1] + "…"

    def value(self, value: Any) -> Any:
        """A JSON value: every text in it, and all that stands under the name of a secret."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(k)): GONE if _secret(str(k), v) else self.value(v) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(v) for v in (value if isinstance(value, list | tuple) else sorted(value, key=str))]
        return value


def _secret(name: str, value: object) -> bool:
    """`{"password": "x"}`, and not `{"token": 3}`."""
    return bool(_SECRET_KEY.fullmatch(name)) and isinstance(value, str | bytes) and bool(value)
