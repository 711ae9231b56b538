"""An incident as a Slack message in Block Kit: what broke, since when, whom it hits, why, and what is done about it.

Limits of https://docs.slack.dev/reference/block-kit/blocks: 50 blocks, 3000 characters a section, 150 a header.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from aiops import story
from aiops.account import again, urgency
from aiops.humanise import utc

JSON = dict[str, Any]
SECTION, HEADER, BLOCKS, TEXT = 3000, 150, 50, 3000
SIGNS = {"critical": "🔴", "warning": "🟠", "info": "🔵"}


def message(kind: str, form: JSON, page: str = "") -> JSON:
    """`text` (for notifications and screen readers) and `blocks`. kind: opened, updated, resolved."""
    head = _head(kind, form)
    parts = [_section(f"*{mrkdwn(_state(form))}*  {mrkdwn(story.since(form, form['updated_at']))}"), *_impact(form),
             *_before(form), *_signals(form), *_causes(form), *_decisions(form), _foot(form, page)]
    blocks = [{"type": "header", "text": {"type": "plain_text", "text": _cut(head, HEADER), "emoji": True}}, *parts]
    return {"text": _cut(mrkdwn(head), TEXT), "blocks": blocks[:BLOCKS]}


def mrkdwn(text: str) -> str:
    """Text that Slack shows as it is: no markup, no mention, no link. https://docs.slack.dev/messaging/formatting-message-text"""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "*_~`":
        text = text.replace(sign, f"\u200b{sign}\u200b")
    return " ".join(text.split())


def code(text: str) -> str:
    """A name in fixed width. A backtick would end it."""
    text = " ".join(text.replace("`", "'").split())
    return "`" + text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") + "`"


def _head(kind: str, form: JSON) -> str:
    if kind == "resolved":
        word = "Closed by a restart" if story.interrupted(form) else "Resolved"
        word = f"Merged into {form['merged_into']}" if form.get("merged_into") else word
        return f"✅ {word}: {story.headline(form)}"
    return f"{SIGNS.get(form['severity'], '')} {story.headline(form)}"


def _state(form: JSON) -> str:
    return " · ".join(part for part in (urgency(form), form["severity"].upper(), form["state"]) if part)


def _impact(form: JSON) -> list[JSON]:
    hit = story.impact(form)
    return [_section(f"*Impact* {mrkdwn(hit)}")] if hit else []


def _before(form: JSON) -> list[JSON]:
    seen = again(form)
    return [_section(f"*Seen before* {mrkdwn(seen)}")] if seen else []


def _signals(form: JSON) -> list[JSON]:
    alerts = sorted(form["alerts"], key=lambda a: a["p_value"])
    lines = [f"• {code(a['entity'])} {mrkdwn(a['signal'])} {mrkdwn(story.level(a))}" for a in alerts]
    title = f"*What {'was' if form['state'] == 'closed' else 'is'} wrong*"
    return [_section(_lines(title, lines, 6))] if len(lines) > 1 else []


def _causes(form: JSON) -> list[JSON]:
    lines = []
    for cause in form["causes"][:3]:
        lines.append(f"*{cause['score']:.0%}* {code(cause['entity'])} {mrkdwn(story.listed(cause['signals'], 3))}")
        best = sorted(cause["reasons"], key=lambda r: -abs(r["contribution"]))[:4]
        lines += [f"      {r['contribution']:+.2f}  {mrkdwn(r['text'])}" for r in best]
    return [_section(_lines("*Probable cause*", lines, 20))] if lines else []


def _decisions(form: JSON) -> list[JSON]:
    lines = []
    for action in sorted(form["actions"], key=lambda a: -a["at"]):
        done = story.outcome(form, action)
        after = f" → *{mrkdwn(story.ended(done))}* {mrkdwn(done['reason'])}" if done else ""
        lines.append(f"• {utc(action['at'], '%H:%M:%S')} {mrkdwn(action['policy'])} {mrkdwn(story.decision(action))}"
                     f" - {mrkdwn(action['reason'])}{after}")
        if story.waits(form, action):
            lines.append(f"      {code('aiops approve ' + action['id'])} or {code('aiops reject ' + action['id'])}")
    return [_section(_lines("*Done and asked*", lines, 10))] if lines else []


def _foot(form: JSON, page: str) -> JSON:
    link = f"  ·  <{page.rstrip('/')}/incidents/{quote(form['id'], safe='')}|open the incident>" if page else ""
    text = f"{code(form['id'])}  ·  {utc(form['updated_at'])}{link}"
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text[:SECTION]}]}


def _section(text: str) -> JSON:
    return {"type": "section", "text": {"type": "mrkdwn", "text": _cut(text, SECTION)}}


def _lines(title: str, lines: list[str], at_most: int) -> str:
    """Whole lines only, as many as fit, and how many do not."""
    shown: list[str] = []
    for line in lines[:at_most]:
        if sum(map(len, shown)) + len(line) > SECTION - 200:
            break
        shown.append(_cut(line, 600))
    rest = [f"_and {len(lines) - len(shown)} more_"] if len(shown) < len(lines) else []
    return "\n".join([title, *shown, *rest])


def _cut(text: str, limit: int) -> str:
    """At most `limit` characters, never through the middle of an `&lt;`."""
    if len(text) <= limit:
        return text
    kept = text[: limit - 1]
    amp = kept.rfind("&")
    return (kept[:amp] if amp > limit - 7 and ";" not in kept[amp:] else kept) + "…"
