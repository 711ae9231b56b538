"""Why nothing happened: every alert of a step, and every anomaly that is none, ends in exactly one named state.

`of_alert` and `of_anomaly` are total: whatever comes in, one state comes out, with the name of what holds it there.
docs/audit.md lists the states. Event time only; equal steps give equal states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from aiops.types import Action, Alert, Anomaly, EndName, EndState, Incident, Outcome, Standing

MOST_ALERTS, MOST_ANOMALIES = 20_000, 5_000
"""So many are remembered beside those of the last step, the last seen ones."""
KEEP_S = 24 * 3600.0
RANK: tuple[EndName, ...] = ("acting", "waiting", "acted", "rehearsed", "rejected", "expired", "cooldown", "blocked",
                             "maintenance", "no_target", "condition")
"""Of several policies on one incident, the one that is furthest."""
WHOLE: frozenset[EndName] = frozenset({"acting", "waiting", "acted", "rehearsed", "rejected", "expired"})
"""What was decided on an incident holds for all of its alerts; what was not, for those of the suspected cause."""
Key = tuple[str, ...]
"""(entity, signal), or (incident, entity, signal)."""


class EndStates:
    """The last state of each (entity, signal), bounded. `update` once a step, after the decisions."""

    def __init__(self) -> None:
        self._alerts: dict[Key, EndState] = {}  # by incident, too: one that is over keeps how it ended
        self._anomalies: dict[Key, EndState] = {}

    def update(self, at: float, anomalies: Sequence[Anomaly], alerts: Sequence[Alert], incidents: Iterable[Incident],
               standings: Mapping[str, Sequence[Standing]], learned: Callable[[int], bool]) -> tuple[EndState, ...]:
        """The state of every alert and anomaly of this step, and of what is in `incidents`: one each (entity, signal).

        incidents: those that are open, and those that changed. learned: whether it is known what is usual in a column.
        """
        now = {(e.entity, e.signal): e for e in _alerted(at, alerts, incidents, standings)}
        rest: dict[tuple[str, str], Anomaly] = {}
        for a in anomalies:
            key = (a.entity, a.name)
            if key not in now and (key not in rest or a.p_value < rest[key].p_value):
                rest[key] = a
        weak: dict[Key, EndState] = {key: of_anomaly(at, a, learned) for key, a in rest.items()}
        if not now and not weak:
            return ()
        kept: dict[Key, EndState] = {(e.incident, *key): e for key, e in now.items()}
        ends = (*_keep(self._alerts, kept, at, MOST_ALERTS), *_keep(self._anomalies, weak, at, MOST_ANOMALIES))
        for key in now:
            self._anomalies.pop(key, None)
        return ends

    def known(self) -> list[EndState]:
        """The last state of each (entity, signal). Safe beside a running step."""
        found: dict[Key, EndState] = {}
        for e in (*list(self._anomalies.values()), *list(self._alerts.values())):
            key = (e.entity, e.signal)
            if key not in found or e.at >= found[key].at:
                found[key] = e
        return [found[key] for key in sorted(found)]

    def of(self, incident: str) -> list[EndState]:
        """The states of what is, or was, in an incident. Safe beside a running step."""
        mine = [e for e in list(self._alerts.values()) if e.incident == incident]
        return sorted(mine, key=lambda e: (e.entity, e.signal))


def _alerted(at: float, alerts: Sequence[Alert], incidents: Iterable[Incident],
             standings: Mapping[str, Sequence[Standing]]) -> Iterable[EndState]:
    """Of what is in incidents first, then of what is in none; an alert of this step is newer than the one in its incident."""
    newest = {(a.entity, a.signal): a for a in alerts}
    for incident in sorted(incidents, key=lambda i: (i.state == "open", i.opened_at, i.id)):
        fate = furthest(standings.get(incident.id, ())) or was_done(incident)
        for a in incident.alerts:
            newer = a if _goes_on(a, newest) else newest.pop((a.entity, a.signal), a)
            yield of_alert(at, newer, incident, fate)
    for a in newest.values():
        yield of_alert(at, a, None, None)


def _goes_on(a: Alert, newest: Mapping[tuple[str, str], Alert]) -> bool:
    """Whether it fires still, in another incident."""
    new = newest.get((a.entity, a.signal))
    return a.state == "suppressed" and new is not None and new.state == "firing"


def of_alert(at: float, a: Alert, incident: Incident | None, fate: Standing | None) -> EndState:
    """The state of an alert. incident: the one that it is in; fate: how the policies stand on that."""
    def end(state: EndName, by: str = "", text: str = "", policy: str = "") -> EndState:
        return EndState(at, at, a.entity, a.signal, state, by, text, incident.id if incident else "", policy)

    if a.state == "suppressed":
        window = a.text.startswith("maintenance ")
        return end("maintenance", a.text.split(" ", 2)[1], a.text) if window else end("suppressed", "", a.text)
    if a.state == "pending":
        return end("pending", "", "a witness: it tells only where somebody else lacks what it uses")
    if fate is not None and fate.state in WHOLE:
        return end(fate.state, fate.by, fate.text, fate.policy)
    if a.state == "resolved":
        return end("resolved", "", "it is no longer reported" if a.silent else "back to normal")
    if incident is None and a.opens < 1.0:
        return end("habitual", "", a.text)
    if incident is None:
        return end("no_incident", "", "it fires, and was put into no incident")
    cause = incident.causes[0].entity if incident.causes else a.entity
    if cause != a.entity:
        return end("inhibited", cause, f"taken for a consequence of what is wrong with {cause}")
    if fate is None:
        return end("no_policy", "", "no policy is about this")
    return end(fate.state, fate.by, fate.text, fate.policy)


def of_anomaly(at: float, a: Anomaly, learned: Callable[[int], bool]) -> EndState:
    """The state of an anomaly that is no alert."""
    def end(state: EndName, text: str) -> EndState:
        return EndState(at, at, a.entity, a.name, state, a.detector, text, alerted=False)

    if a.p_value >= 1.0:
        return end("noted", a.text)
    if a.signal >= 0 and not learned(a.signal):
        return end("not_learned_yet", "what is usual here is not known yet")
    return end("below_budget", f"p = {a.p_value:.2g}: not enough evidence yet for the budget of false incidents")


def furthest(standings: Sequence[Standing]) -> Standing | None:
    """Of what several policies say of one incident, what went furthest; of equals the first by name."""
    order = {state: n for n, state in enumerate(RANK)}
    return min(standings, key=lambda s: (order.get(s.state, len(RANK)), s.policy), default=None)


def was_done(incident: Incident) -> Standing | None:
    """What came of the decisions on an incident that no policy looks at any more; None where nothing did."""
    told = {o.action: o for o in sorted(incident.outcomes, key=lambda o: o.at)}
    return furthest([s for a in reversed(incident.actions) if (s := _came_of(a, told.get(a.id)))])


def _came_of(a: Action, last: Outcome | None) -> Standing | None:
    """last: the newest outcome of the action."""
    what = f"{a.type} {a.target}"
    if a.decision == "act" and last:
        said = f"{what}: {last.status.replace('_', ' ')}"
        return Standing(a.policy, "acted", last.status, f"{said}: {last.reason}" if last.reason else said)
    if a.decision == "ask" and last:
        return Standing(a.policy, "expired", a.id, f"{what}: {last.reason}")
    if a.decision == "refused" and a.state == "rejected":
        return Standing(a.policy, "rejected", a.id, f"{what}: {a.reason}")
    return Standing(a.policy, "rehearsed", a.id, f"{what} was only rehearsed") if a.decision == "shadow" else None


def _keep(known: dict[Key, EndState], now: Mapping[Key, EndState], at: float, most: int) -> list[EndState]:
    """Remembers this step's states and forgets the oldest; returns them with the time since when each holds."""
    out = []
    for key, new in now.items():
        old = known.pop(key, None)
        same = old is not None and (old.state, old.by) == (new.state, new.by)
        known[key] = replace(new, since=old.since) if same and old else new
        out.append(known[key])
    while known:
        key = next(iter(known))  # the one that was seen longest ago
        if known[key].at == at or (len(known) <= most and at - known[key].at <= KEEP_S):
            break
        del known[key]
    return out
