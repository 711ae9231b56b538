"""What a simulated pod does next: pure, the time is handed in. Its annotations are the script:

    sim.aiops.io/ready-after     seconds from a start until it is ready (0.3), or `never`
    sim.aiops.io/exits-after     the first container ends so many seconds after each start: a crash loop, or a Job's work
    sim.aiops.io/exit-code       with this code (1; 0 makes a Job succeed)
    sim.aiops.io/needs-memory    a quantity: with a lower memory limit the container is OOM killed a second after each start
    sim.aiops.io/image-pull      `fails`: the image cannot be pulled
    sim.aiops.io/stops-after     seconds from the deletion until it is gone (0.3), at most the grace period

In the template of a workload they hold for all its pods; set on a pod they change what it does from then on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

PREFIX = "sim.aiops.io/"
BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 8.0
"""From the second restart on, doubled each time: a real kubelet has 10 s and 300 s."""
OOM_AFTER_S = 1.0
Json = dict[str, Any]
State = Literal["new", "pulling", "running", "ready", "backoff", "done"]
_POWERS = {"": 1, "m": 0.001, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@dataclass(frozen=True)
class Script:
    """`ready_after_s` and `ends_after_s`: None is never. `oom`: it ends for want of memory. `restart`: the restartPolicy."""

    ready_after_s: float | None
    ends_after_s: float | None
    oom: bool
    code: int
    pull_fails: bool
    stops_after_s: float
    restart: str


@dataclass(frozen=True)
class Run:
    """How far a pod has come. Times are Unix seconds; `flipped_at`: when its readiness changed last."""

    state: State = "new"
    since: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    flipped_at: float = 0.0
    restarts: int = 0
    reason: str = ""
    code: int = 0


def script_of(pod: Json) -> Script:
    """What the annotations and the memory limit of the first container say."""
    notes = {k.removeprefix(PREFIX): v for k, v in (pod["metadata"].get("annotations") or {}).items() if k.startswith(PREFIX)}
    limit = (pod["spec"]["containers"][0].get("resources") or {}).get("limits", {}).get("memory")
    oom = "needs-memory" in notes and limit is not None and quantity(limit) < quantity(notes["needs-memory"])
    ready, exits = notes.get("ready-after", "0.3"), notes.get("exits-after")
    grace = pod["metadata"].get("deletionGracePeriodSeconds", 30)
    ends = OOM_AFTER_S if oom else None if exits is None else float(exits)
    return Script(None if ready == "never" else float(ready), ends, oom,
                  137 if oom else int(notes.get("exit-code", "1")), notes.get("image-pull") == "fails",
                  min(float(notes.get("stops-after", "0.3")), grace), pod["spec"].get("restartPolicy", "Always"))


def following(script: Script, run: Run) -> tuple[float, State] | None:
    """When (Unix seconds) which state comes next; None: none, unless the script changes."""
    if run.state in ("new", "pulling"):
        if script.pull_fails:
            return None if run.state == "pulling" else (run.since, "pulling")
        return run.since, "running"
    if run.state == "backoff":
        return run.since + backoff_s(run.restarts), "running"
    if run.state == "done":
        return None
    return min(_while_running(script, run), default=None)


def _while_running(script: Script, run: Run) -> list[tuple[float, State]]:
    steps: list[tuple[float, State]] = []
    if script.ends_after_s is not None:
        again = script.restart == "Always" or (script.restart == "OnFailure" and script.code != 0)
        steps.append((run.started_at + script.ends_after_s, "backoff" if again else "done"))
    if run.state == "running" and script.ready_after_s is not None:
        steps.append((run.started_at + script.ready_after_s, "ready"))
    if run.state == "ready" and script.ready_after_s is None:
        steps.append((run.since, "running"))
    return steps


def backoff_s(restarts: int) -> float:
    """The first restart is at once."""
    return 0.0 if restarts == 0 else min(BACKOFF_S * 2.0 ** min(restarts - 1, 10), LONGEST_BACKOFF_S)


def moved(script: Script, run: Run, state: State, at: float) -> Run:
    """The run after it came into `state`."""
    new = replace(run, state=state, since=at, flipped_at=at if (run.state == "ready") != (state == "ready") else run.flipped_at)
    if state in ("backoff", "done"):
        reason = "OOMKilled" if script.oom else "Completed" if script.code == 0 else "Error"
        return replace(new, ended_at=at, reason=reason, code=script.code)
    if state == "running" and run.state != "ready":
        return replace(new, started_at=at, restarts=run.restarts + (run.state == "backoff"))
    return new


def status_of(pod: Json, run: Run, ip: str, host_ip: str) -> Json:
    """The status that a kubelet writes, but for the condition PodScheduled, which is the scheduler's."""
    phase = {"new": "Pending", "pulling": "Pending", "done": "Succeeded" if run.code == 0 else "Failed"}.get(run.state, "Running")
    ready = "True" if run.state == "ready" else "False"
    kinds = {"Initialized": "True", "ContainersReady": ready, "Ready": ready}
    conditions = [{"type": kind, "status": status, "lastTransitionTime": stamp(run.flipped_at or run.since),
                   "reason": "ContainersNotReady" if status == "False" else None} for kind, status in kinds.items()]
    first, *others = pod["spec"]["containers"]
    return {"phase": phase, "hostIP": host_ip, "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions,
            "startTime": pod["status"].get("startTime") or stamp(run.since),
            "containerStatuses": [_container(first, run), *(_container(c, replace(run, restarts=0, reason="")) for c in others)]}


def _container(container: Json, run: Run) -> Json:
    ended = {"terminated": {"exitCode": run.code, "reason": run.reason, "startedAt": stamp(run.started_at),
                            "finishedAt": stamp(run.ended_at)}}
    return {"name": container["name"], "image": container["image"], "imageID": f"sim://{container['image']}",
            "ready": run.state == "ready", "started": run.state in ("running", "ready"), "restartCount": run.restarts,
            "state": _now(container, run, ended), "lastState": ended if run.reason and run.state != "done" else {}}


def _now(container: Json, run: Run, ended: Json) -> Json:
    if run.state in ("running", "ready"):
        return {"running": {"startedAt": stamp(run.started_at)}}
    if run.state == "done":
        return ended
    if run.state == "backoff":
        return {"waiting": {"reason": "CrashLoopBackOff", "message": f"back-off {backoff_s(run.restarts):g}s restarting"}}
    if run.state == "pulling":
        return {"waiting": {"reason": "ImagePullBackOff", "message": f"Back-off pulling image \"{container['image']}\""}}
    return {"waiting": {"reason": "ContainerCreating"}}


def quantity(text: str) -> float:
    """A quantity of Kubernetes (`512Mi`, `1G`, `250m`) as a number. Raises ValueError."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text)
    if match is None or match[2] not in _POWERS:
        raise ValueError(f"{text!r} is not a quantity")
    return float(match[1]) * _POWERS[match[2]]


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
