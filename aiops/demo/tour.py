"""One thing after the other goes wrong in the simulated cluster, for ever: what `aiops run --demo` shows.

The cluster takes a tour for one of its faults, which is another one every time. What was changed on account of a fault is put
back by people after a while, as it would be: a GPU is replaced and its node given back, a job is mended. What came of a fault
is told from the reports of the pipeline alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiops import story
from aiops.changes import Object, Step, delete, patch, uid_of, value_at
from aiops.demo import faults
from aiops.demo.faults import Fault
from aiops.demo.world import World
from aiops.humanise import duration, utc
from aiops.types import Entity, Report

FIRST_S, CALM_S, REPAIR_S = 60.0, 240.0, 360.0
"""Simulated seconds until the first fault; without an incident before the next one; from the cure until people come."""
PATIENCE_S = 2400.0
"""So long nobody does anything about a fault that is not cured, and so long the next one waits for incidents to close."""
Path = tuple[Step, ...]
KEPT = ("node", "deployment", "statefulset", "job", "cronjob", "replicaset")
FIELDS: tuple[Path, ...] = (("metadata", "annotations"), ("spec", "replicas"), ("spec", "suspend"), ("spec", "unschedulable"),
                            ("spec", "template", "spec"))
"""Kinds of objects that people put back as they were, and in which fields; pods follow. The annotations are where aiops notes
what it did to an object, and leaves it alone when somebody takes that back and the note not."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A kind of fault, whom it hits, and what has happened, in words."""

    kind: type[Fault]
    target: str
    text: str


SCENES = (
    Scene(faults.Hung, "chat", "an engine of chat hangs: it takes requests, answers none, and its health check is green"),
    Scene(faults.BadDeploy, "catalog", "a bad version of catalog is rolled out: a third of its answers are errors"),
    Scene(faults.GpuLost, "gpu-1", "a GPU of gpu-1 falls off the bus (XID 79)"),
    Scene(faults.SlowReplica, "chat", "one replica of chat is three times as slow as the others"),
    Scene(faults.FullVolume, "db", "the volume of the database fills up"),
    Scene(faults.CrashLoop, "catalog", "a version of catalog is rolled out that ends as soon as it starts"),
    Scene(faults.Surge, "chat", "chat is asked more than twice as much as usual"),
    Scene(faults.RowRemap, "gpu-2", "memory of a GPU of gpu-2 fails: a row waits to be taken out of use"),
    Scene(faults.StuckJob, "embed", "the job embed fails and starts again without end"),
    Scene(faults.Leak, "gateway", "the processes of gateway leak memory"),
    Scene(faults.NodeLost, "web-1", "the kubelet of web-1 does not report any more"),
    Scene(faults.Hot, "gpu-0", "a fan of gpu-0 is broken: its GPUs slow themselves down"),
)


class Tour:
    """A Trouble for `World.faults`, and a Sink that hears what the pipeline made of it. `say` takes a line for people.

    The scenes come in order, and then again and again in orders that the seed decides. Event time only: nothing goes wrong
    before `set_out`.
    """

    start = float("-inf")

    def __init__(self, say: Callable[[str], object], seed: int = 0,
                 scenes: Sequence[Scene] = SCENES) -> None:
        self._say = say
        self._scenes = _in_turn(scenes, np.random.default_rng(seed))
        self._scene: Scene | None = None
        self._fault: Fault | None = None
        self._next_at, self._busy_at = float("inf"), float("-inf")
        self._cured_at: float | None = None
        self._before: dict[Entity, dict[Path, Any]] = {}
        self._open: set[str] = set()
        self._told = _Told()

    def set_out(self, world: World, at: float) -> None:
        """The first fault comes soon after `at`; as the cluster is now it shall always be again."""
        self._before = {e: {f: copy.deepcopy(value_at(o, f)) for f in FIELDS} for e, o in _kept(world)}
        self._next_at = at + FIRST_S

    # ------------------------------------------------------------------------------------------------- a Trouble
    def begin(self, world: World, at: float) -> None:
        """It is always there."""

    def apply(self, world: World, at: float) -> None:
        if self._fault is not None:
            self._go_on(world, at, self._fault)
        elif at >= self._next_at and (at >= self._busy_at + CALM_S or at >= self._told.at + 2 * PATIENCE_S):
            self._tell(at)
            self._break(world, at)

    def cured(self, world: World) -> bool:
        """Something else will go wrong."""
        return False

    @property
    def target(self) -> str:
        """Of the fault of the moment."""
        return self._fault.target if self._fault else ""

    @property
    def remap(self) -> bool:
        return self._fault is not None and self._fault.remap

    def _break(self, world: World, at: float) -> None:
        self._scene = next(self._scenes)
        self._fault, self._cured_at = self._scene.kind(at, self._scene.target), None
        self._told = _Told(at)
        self._say(f"{utc(at, '%H:%M:%S')}  {self._scene.text}")
        self._fault.begin(world, at)
        self._go_on(world, at, self._fault)

    def _go_on(self, world: World, at: float, fault: Fault) -> None:
        fault.apply(world, at)
        if self._cured_at is None and fault.cured(world):
            self._cured_at = at
        if at >= (fault.start + PATIENCE_S if self._cured_at is None else self._cured_at + REPAIR_S):
            self._put_back(world)
            self._told.by_people = self._cured_at is None
            self._fault, self._next_at = None, at + CALM_S

    def _put_back(self, world: World) -> None:
        """Everything as it was, and what was not there goes."""
        for entity, one in _kept(world):
            before = self._before.get(entity)
            world.cluster.happens(delete(entity, uid_of(one)) if before is None else patch(entity, one, before))
        world.surge.clear()
        world.volume_used, world.job_failures = min(world.volume_used, 0.55), 0.0
        del world.cluster.calls[:]

    # --------------------------------------------------------------------------------------------------- a Sink
    def publish(self, report: Report) -> None:
        """Notes what the pipeline found and did; tells it once the fault is over and all incidents are closed."""
        if self._scene is None:
            return
        self._told.hear(report)
        for incident in report.incidents:
            (self._open.add if incident.state == "open" else self._open.discard)(incident.id)
        if self._open:
            self._busy_at = report.at
        elif self._fault is None:
            self._tell(report.at)

    def _tell(self, at: float) -> None:
        """Once, of each fault."""
        if self._scene is not None and not self._told.said:
            self._say(f"{'':8}  -> {self._told.text(at, bool(self._open))}")
            self._told.said = True

    def close(self) -> None:
        """Nothing is held."""

    def text(self) -> str:
        """What goes on in truth, in one sentence. May be asked beside a running tick."""
        scene, fault, cured_at = self._scene, self._fault, self._cured_at
        if fault is None or scene is None:
            return "nothing is broken; the next fault comes soon."
        over = "" if cured_at is None else f"; harmless since {utc(cured_at, '%H:%M:%S')}"
        return f"since {utc(fault.start, '%H:%M:%S')} {scene.text}{over}."


@dataclass
class _Told:
    """What came of the fault that began at `at`, as far as the pipeline has reported it."""

    at: float = 0.0
    found_at: float | None = None
    by_people: bool = False
    said: bool = False

    def __post_init__(self) -> None:
        self.incidents: set[str] = set()
        self._acted: dict[str, str] = {}
        self._ended: dict[str, str] = {}

    def hear(self, report: Report) -> None:
        self.incidents |= {i.id for i in report.incidents if i.state == "open"}
        if self.found_at is None and self.incidents:
            self.found_at = report.at
        self._acted |= {a.id: f"{a.type} {story.name(a.target)}" for a in report.actions
                        if a.decision == "act" and a.state != "undo"}
        self._ended |= {o.action: story.OUTCOMES.get(o.status, o.status) for o in report.outcomes if o.action in self._acted}

    def text(self, at: float, still_open: bool) -> str:
        """`found 15 s later -> Restart pod shop/chat-0: it helped -> all well after 6 min`."""
        found = "not found" if self.found_at is None else f"found {duration(self.found_at - self.at)} later"
        done = [f"{what}: {self._ended.get(name, 'not heard of again')}" for name, what in self._acted.items()]
        end = "an incident still open" if still_open else "people put it right" if self.by_people else "all well"
        return " -> ".join([found, *(done or ["nothing was done"]), f"{end} after {duration(at - self.at)}"])


def _in_turn(scenes: Sequence[Scene], random: np.random.Generator) -> Iterator[Scene]:
    """First as they stand, then shuffled, for ever."""
    yield from scenes
    while True:
        yield from (scenes[k] for k in random.permutation(len(scenes)).tolist())


def _kept(world: World) -> list[tuple[Entity, Object]]:
    return [(e, o) for e, o in world.cluster.objects.items() if e.split("/")[0] in KEPT]
