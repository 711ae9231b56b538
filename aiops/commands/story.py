"""An incident as a person reads it in a terminal. Pure: JSON of the API in, rich renderables out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiops import humanise
from aiops.account import account, again, urgency
from aiops.commands.common import clean
from aiops.story import most_urgent_first

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

JSON = Mapping[str, Any]
BARS = "▁▂▃▄▅▆▇█"
COLOURS = {"critical": "bold red", "warning": "yellow", "info": "cyan", "act": "bold green", "ask": "bold yellow",
           "shadow": "dim", "refused": "magenta", "P1": "bold red", "P2": "bold red", "P3": "yellow", "P4": "dim"}


def sparkline(values: Sequence[float | None], width: int = 40) -> str:
    """A plot one line high: each column is the mean of its share of the values, a blank where there was none."""
    columns = min(width, len(values))
    means: list[float | None] = []
    for i in range(columns):
        part = [v for v in values[i * len(values) // columns:(i + 1) * len(values) // columns] if v is not None]
        means.append(sum(part) / len(part) if part else None)
    known = [m for m in means if m is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    return "".join(" " if m is None else BARS[round((m - low) / span * (len(BARS) - 1)) if span else 0] for m in means)


def listing(incidents: Sequence[JSON]) -> Table:
    """One row an incident, the most urgent of those that are open first."""
    forms = sorted(map(dict, incidents), key=most_urgent_first)
    seen = [again(i).partition(";")[0] for i in forms]
    table = grid("ID", "PRIORITY", "STATE", "SINCE", "FOR", "CAUSE", *(["SEEN BEFORE"] if any(seen) else []), "ASKS")
    for i, before in zip(forms, seen, strict=True):
        asks = sum(a.get("decision") == "ask" and not a.get("state") for a in i.get("actions", []))
        table.add_row(clean(i["id"]), _urgency(i), clean(i.get("state", "")), humanise.utc(i.get("opened_at")), _lasted(i),
                      _headline(i), *([clean(before)] if any(seen) else []), f"{asks} to approve" if asks else "")
    return table


def _urgency(i: dict[str, Any]) -> Text:
    """`P2 critical`; only the severity in incidents of earlier versions."""
    level, severity = clean(urgency(i)), clean(i.get("severity", ""))
    return _text(f"{level} {severity}".strip(), COLOURS.get(level or severity, ""))


def story(i: JSON) -> Iterator[Table | Text]:
    """In ten lines what happened; then causes, signals, decisions and timeline, in the order in which an on-call person asks."""
    yield from _head(dict(i), account(dict(i), i.get("updated_at") or i["opened_at"]))
    for title, table in (("Causes", _causes(i)), ("Signals", _signals(i)), ("Decisions", _decisions(i)),
                         ("What was done about each, or why nothing was", _why(i)),
                         ("What people's words ask of its signals", _moved(i)), ("Timeline", _timeline(i))):
        if table.row_count:
            yield _text(f"\n{title}", "bold")
            yield table


def _head(i: dict[str, Any], lines: Sequence[tuple[str, str]]) -> Iterator[Text | Table]:
    yield _text(clean(lines[0][1]), "bold")
    yield _urgency(i).append(f", {clean(i.get('state', ''))}, {clean(i['id'])}", style="not bold default")
    table = grid("ABOUT", "WHAT", header=False)
    for about, text in lines[1:]:
        table.add_row(_text(about, "dim"), clean(text))
    yield table
    if i.get("models"):
        yield _text(f"found by {', '.join(clean(m) for m in i['models'])}", "dim")


def _moved(i: JSON) -> Table:
    table = grid("SIGNAL", "CLASS", "EVIDENCE", header=False)
    for row in i.get("sensitivity", []):
        table.add_row(clean(row["signal"]), clean(row["class"]),
                      f"{row['factor']:.2f} times the usual evidence, less each day until {humanise.utc(row['until'])}")
    return table


def _causes(i: JSON) -> Table:
    table = grid("SHARE", "ENTITY", "WHY", header=False)
    for cause in i.get("causes", [])[:5]:
        reasons = [f"{r['contribution']:+.2f} {clean(r['text'])}" for r in cause.get("reasons", [])]
        table.add_row(f"{cause['score']:.0%}", clean(cause["entity"]), "\n".join(reasons))
    return table


def _signals(i: JSON) -> Table:
    points: dict[tuple[str, str], list[float | None]] = {}
    for p in i.get("points", []):
        points.setdefault((p["entity"], p["signal"]), []).append(p.get("value"))
    table = grid("ENTITY", "SIGNAL", "VALUE", "EXPECTED", "PLOT")
    for a in i.get("alerts", []):
        unit = a.get("unit", "")
        table.add_row(clean(a["entity"]), clean(a["signal"]), humanise.quantity(a.get("value"), unit), _band(a, unit),
                      sparkline(points.get((a["entity"], a["signal"]), [])))
    return table


def _band(a: JSON, unit: str) -> str:
    if a.get("lower") is None or a.get("upper") is None:
        return humanise.quantity(a.get("expected"), unit)
    return f"{humanise.quantity(a['lower'], unit)} … {humanise.quantity(a['upper'], unit)}"


def _decisions(i: JSON) -> Table:
    became: dict[str, list[str]] = {}
    for o in i.get("outcomes", []):
        became.setdefault(o["action"], []).append(f"{o['status']}: {o['reason']}" if o.get("reason") else o["status"])
    table = grid("AT", "DECISION", "ACTION", "TARGET", "POLICY", "ID", "WHY, AND WHAT CAME OF IT")
    for a in i.get("actions", []):
        params = " ".join(f"{k}={v}" for k, v in (a.get("params") or {}).items())
        why = "\n".join(clean(t) for t in [a.get("reason", ""), *(a.get("answers") or []), *became.get(a["id"], [])] if t)
        table.add_row(humanise.utc(a.get("at"), "%H:%M:%S"), _coloured(a["decision"]),
                      clean(f"{a['type']} {params}".strip()), clean(a["target"]), clean(a.get("policy", "")),
                      clean(a["id"]), why)
    return table


def _why(i: JSON) -> Table:
    table = grid("ENTITY", "SIGNAL", "SINCE", "STATE", "BY", "WHY")
    for w in i.get("why", []):
        table.add_row(clean(w["entity"]), clean(w["signal"]), humanise.utc(w["since"], "%H:%M:%S"),
                      clean(w["state"].replace("_", " ")), clean(w["by"]), clean(w["text"]))
    return table


def _timeline(i: JSON) -> Table:
    table = grid("AT", "KIND", "WHAT", header=False)
    for t in i.get("timeline", []):
        table.add_row(humanise.utc(t.get("at"), "%H:%M:%S"), clean(t.get("kind", "")), clean(t.get("text", "")))
    return table


def _headline(i: JSON) -> str:
    return clean(i.get("title") or ", ".join(i.get("entities", [])[:2]))


def _lasted(i: JSON) -> str:
    end = i.get("closed_at") or i.get("updated_at")
    return humanise.duration(end - i["opened_at"]) if end and i.get("opened_at") else humanise.NOTHING


def _coloured(word: str) -> Text:
    return _text(clean(word), COLOURS.get(word, ""))


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style)


def grid(*columns: str, header: bool = True) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=header, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, overflow="fold")
    return table
