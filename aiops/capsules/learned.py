"""What had been learned of some entities' signals, out of what was learned of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aiops.models import Columns, Learned, Lineage, Saved, Unusable, code_of, moved, revived
from aiops.models import picked as picked_rows
from aiops.store.models import ModelFiles
from aiops.types import Entity
from detectors._trends import _FRESH as TRENDS

JSON = dict[str, Any]
PLACED = (("day", "week"), ("since", "last", "told", "told_at", *(f"trends.{name}" for name in TRENDS)))
"""Of a state with `place`, the arrays with one column a place: those of signals that are not picked would be in every capsule."""


def read(folder: Path) -> Learned | None:
    """What was saved there; None where there is nothing that can be used. Never changes the folder."""
    return ModelFiles(folder, repair=False).read() if folder.is_dir() else None


def write(folder: Path, learned: Learned) -> None:
    """Raises OSError."""
    ModelFiles(folder).write(learned)


def picked(learned: Learned, entities: Collection[Entity]) -> Learned:
    """Only what concerns these entities: their columns, their raw series, their evidence. Candidates and former models are
    left out: they had no voice. A detector that does not say what it keeps by signal is left out, too, and learns anew."""
    rows = learned.door["signals"]
    columns: Columns = np.flatnonzero(np.array([row[0] in entities for row in rows], np.bool_))
    series = np.flatnonzero(np.array([row[0] in entities for row in learned.door["series"]], np.bool_))
    door = {**learned.door, "signals": [rows[k] for k in columns.tolist()],
            "heard": np.asarray(learned.door["heard"], np.float64)[columns],
            "series": [learned.door["series"][k] for k in series.tolist()],
            "raw": np.asarray(learned.door["raw"], np.float64)[:, series]}
    lineages = {name: Lineage(saved, since=line.since) for name, line in learned.lineages.items()
                if (saved := _serving(line.serving, columns, entities)) is not None}
    more = {name: part(learned.more[name], entities) for name, part in _PARTS.items() if name in learned.more}
    return Learned(learned.at, door, lineages, more)


def _serving(saved: Saved, columns: Columns, entities: Collection[Entity]) -> Saved | None:
    """Picked, and read and given out again by its own code: what belongs to nobody any more is gone then."""
    try:
        small = moved(saved, code_of(saved.detector, saved.version)[0], columns)
        small = replace(small, state=_of_entities(_compact(dict(small.state)), entities))
        return replace(small, state=revived(small, None, math.inf).saved().state)
    except Unusable:
        return None


def _compact(state: JSON) -> JSON:
    """Without the rows that `place` pointed at for signals that are not there any more."""
    rows = next((names for names in PLACED if all(_leaf(state, name) is not None for name in ("place", *names))), None)
    if rows is None:
        return state
    place = state["place"]
    used = np.unique(place[place >= 0])
    out = picked_rows(state, rows, used)
    out["place"] = np.where(place >= 0, np.searchsorted(used, place), -1).astype(place.dtype)
    return out | ({"seasons": len(used)} if "seasons" in state else {})


def _leaf(state: Mapping[str, Any], name: str) -> Any:
    head, _, rest = name.partition(".")
    found = state.get(head)
    return _leaf(found, rest) if rest and isinstance(found, Mapping) else found


def _of_entities(state: JSON, entities: Collection[Entity]) -> JSON:
    """Maps by entity, and lists of names with an array element for each, of these entities only."""
    out = {}
    for key, value in state.items():
        by_entity = isinstance(value, Mapping) and value and all(_entity(k) for k in value)
        out[key] = {k: v for k, v in value.items() if k in entities} if by_entity else value
    names = state.get("names")
    if isinstance(names, list) and "place" not in state:  # absence; forests drop by themselves who has no column
        kept = [i for i, name in enumerate(names) if name in entities]
        out["names"] = [names[i] for i in kept]
        out |= {k: v[kept] for k, v in state.items() if isinstance(v, np.ndarray) and v.ndim == 1 and len(v) >= len(names)}
    return out


def _entity(text: str) -> bool:
    return text.count("/") >= 2


def _alerting(state: Mapping[str, Any], entities: Collection[Entity]) -> JSON:
    """Evidence, ladder and habits of these entities; the budget's record is that of all."""
    def mine(table: Mapping[str, Any]) -> JSON:
        return {k: v for k, v in table.items() if _of(k) in entities}
    ladder = {"keys": mine(state["ladder"]["keys"]), "entities": mine(state["ladder"]["entities"])}
    others = {**state["others"], "on": mine(state["others"]["on"]), "pasts": mine(state["others"]["pasts"])}
    return {**state, "tracks": mine(state["tracks"]), "ladder": ladder,
            "habits": mine(state["habits"]), "others": others}


def _xids(state: Mapping[str, Any], entities: Collection[Entity]) -> JSON:
    series = [row for row in state["series"] if row[0] in entities]
    return {"series": series, **{part: {e: x for e, x in state[part].items() if e in entities} for part in ("known", "told")}}


def _log_counts(state: Mapping[str, Any], entities: Collection[Entity]) -> JSON:
    return {**state, "entities": {e: x for e, x in state["entities"].items() if e in entities}}


def _calls(state: Sequence[Any], entities: Collection[Entity]) -> list[Any]:
    """Who calls one of these entities, or is called by one."""
    return [row for row in state if any(name in entities for name in (*row[0], *row[1]))]


def _slos(state: Mapping[str, Any], entities: Collection[Entity]) -> JSON:
    return {**state, "rows": [row for row in state["rows"] if row[1] in entities]}


_PARTS: dict[str, Callable[[Any, Collection[Entity]], Any]] = {
    "alerting": _alerting, "xids": _xids, "log_counts": _log_counts, "calls": _calls, "slos": _slos}
"""What other stages keep, and how to take some entities out of it."""


def _of(key: str) -> Entity:
    """The entity of `entity|signal`, or of itself."""
    return key.split("|", 1)[0]


def before(learned: Learned) -> Learned:
    """Without the last samples and the evidence: for a replay that first goes through some past."""
    door = {**learned.door, "series": [], "raw": np.zeros((np.asarray(learned.door["raw"]).shape[0], 0))}
    return replace(learned, door=door, more={k: v for k, v in learned.more.items() if k != "alerting"})


def is_before(learned: Learned | None, at: float) -> bool:
    """Whether it was learned by then."""
    return learned is not None and math.isfinite(learned.at) and learned.at <= at
