"""Which policies are in force while the daemon runs: files of a folder and custom resources of a cluster, looked at in each tick.

A change is taken only when it is right. The files count as one set: something wrong in one of them leaves the last good set in
force. Custom resources count each for itself: a wrong one leaves its own last good version in force, and the others alone. What
is in force enters the pipeline as part of a batch, so that a replay changes policies at the same moment.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from aiops import build
from aiops.meaning import Meanings
from aiops.policy import load, texts
from aiops.policy.texts import RESOURCE, Compiled, Compiler
from aiops.sources.kubernetes.api import KubeError
from aiops.sources.kubernetes.policies import Resource, Standing, stamp
from aiops.sources.kubernetes.reflector import Key
from aiops.types import Report
from aiops.yamlfile import Problem, Problems

log = structlog.get_logger("aiops.policies")
MOST_NOTES, MOST_TEXT = 20, 2_500
Seen = tuple[tuple[str, int, int, int, int], ...]


class Resources(Protocol):
    """The RemediationPolicies of a cluster: `aiops.sources.kubernetes.policies.PolicyResources`."""

    def look(self) -> list[Resource] | None: ...
    def tell(self, standings: Mapping[Key, Standing], at: float) -> None: ...
    def trouble(self) -> str: ...
    def wait(self, seconds: float) -> None: ...
    def close(self) -> None: ...


class Files:
    """The files of a folder. `good` is the last set that was right; `problems` say why it is not the newest."""

    def __init__(self, folder: Path, known: Meanings, good: Mapping[str, str]) -> None:
        self.folder, self.good = folder, dict(good)
        self._compiler = Compiler(known)
        self.problems: tuple[Problem, ...] = ()
        self._seen: Seen | None = None

    def look(self) -> bool:
        """Read again what has changed; True when `good` is another set now."""
        seen = _seen(self.folder)
        if seen is not None and seen == self._seen:
            return False
        self._seen = seen
        try:
            found = texts.read(self.folder)
        except Problems as e:
            self._seen = None
            return self._refuse(e.problems)
        wrong = self._compiler(found).problems
        if wrong:
            return self._refuse(tuple(texts.placed(p, self.folder) for problems in wrong.values() for p in problems))
        self.problems, changed = (), found != self.good
        self.good = found
        return changed

    def _refuse(self, problems: tuple[Problem, ...]) -> bool:
        self.problems = problems
        return False


def _seen(folder: Path) -> Seen | None:
    """What tells whether a file is another one; None where that cannot be told."""
    try:
        paths = [folder] if folder.is_file() else load.files(folder)
        return tuple((str(p), s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for p in paths for s in [p.stat()])
    except OSError:
        return None


class Policies:
    """All policies. A sink too: what was decided lately stands in the status of each custom resource.

    good: the texts of the files with which the daemon begins. beyond: see `aiops.policy.texts`. memory: a file that keeps what
    was in force of the cluster over a restart, so that what is under way finds its policy, and a wrong edit the version before.
    `in_force` is what the pipeline is to begin with, and goes on with.
    """

    def __init__(self, folder: Path | None, known: Meanings, good: Mapping[str, str], beyond: Sequence[str] = (),
                 resources: Resources | None = None, memory: Path | None = None) -> None:
        self._files = Files(folder or build.SHIPPED_POLICIES, known, good)
        self._resources, self._compiler = resources, Compiler(known, beyond)
        self._memory = memory if resources is not None else None
        self._there: list[Resource] | None = None
        self._good = self._remembered()
        self._wrong: dict[str, tuple[Problem, ...]] = {}
        self._taken: frozenset[str] = frozenset()
        self._modes: dict[str, str] = {}
        self._record: dict[str, tuple[str, float, float | None]] = {}
        self._trouble = ""
        self._said: dict[str, str] = {}
        self.reloads: Counter[str] = Counter()
        self.in_force: Mapping[str, str] = self._texts()

    def refresh(self, now: float) -> Mapping[str, str] | None:
        """Look for changes; the set that is in force from now on, None while it is the same. Never raises, never waits."""
        changed = self._files.look()
        there = self._look()
        if changed or there != self._there:
            self._there = there
            self._judge()
        self._say()
        if self._resources is not None:
            self._resources.tell({r.key: self._standing(r) for r in there or ()}, now)
        in_force = self._texts()
        if in_force == self.in_force:
            return None
        self.in_force = in_force
        self.reloads["taken"] += 1
        self._remember()
        return in_force

    def wait(self, seconds: float) -> None:
        """Until the cluster has told which policies there are, at most so long."""
        if self._resources is not None:
            with contextlib.suppress(KubeError, RuntimeError):  # the next look tells
                self._resources.wait(seconds)

    def _look(self) -> list[Resource] | None:
        """The custom resources; those of before while the cluster does not tell, None where it never has."""
        if self._resources is None:
            return []
        try:
            found = self._resources.look()
            self._trouble = self._resources.trouble()
        except (KubeError, RuntimeError) as e:
            self._trouble = str(e)
            return self._there
        return self._there if found is None else found

    def _judge(self) -> None:
        """Which texts of custom resources are in force: each that is right, else its last good version."""
        if self._there is not None:
            self._newest(self._there)
        compiled = self._compiler(self._texts())  # a last good version may have the name of a file that is new
        self._good = {k: v for k, v in self._good.items() if k not in compiled.problems}
        self._modes = _modes(compiled)

    def _newest(self, there: Sequence[Resource]) -> None:
        versions = {_name(r): (r.uid, r.text) for r in there}
        compiled = self._compiler({**self._files.good, **{k: text for k, (_, text) in versions.items()}})
        self._wrong, self._taken = {k: v for k, v in compiled.problems.items() if k in versions}, compiled.taken
        again = self._wrong.keys() & self._good.keys() - self._taken
        before = {k: self._good[k] for k in again if self._good[k][0] == versions[k][0]}
        self._good = {k: before.get(k, v) for k, v in versions.items() if k in before or k not in self._wrong}

    def _remembered(self) -> dict[str, tuple[str, str]]:
        """What was in force of the cluster when the daemon ended: uid and text by name; what is not right (any more) left out."""
        try:
            found = json.loads(self._memory.read_text(encoding="utf-8")) if self._memory else {}
            known = {str(k): (str(uid), str(text)) for k, (uid, text) in found.items() if str(k).startswith(RESOURCE)}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as e:
            log.error("what was in force of the cluster is not known", file=str(self._memory), problem=str(e))
            return {}
        wrong = self._compiler({**self._files.good, **{k: text for k, (_, text) in known.items()}}).problems
        return {k: v for k, v in known.items() if k not in wrong}

    def _remember(self) -> None:
        if self._memory is None:
            return
        try:
            part = self._memory.with_suffix(".part")
            part.write_text(json.dumps(self._good), encoding="utf-8")
            part.replace(self._memory)
        except OSError as e:
            log.error("cannot write what is in force of the cluster", file=str(self._memory), problem=e.strerror)

    def _texts(self) -> dict[str, str]:
        return {**self._files.good, **{k: text for k, (_, text) in self._good.items()}}

    def _standing(self, r: Resource) -> Standing:
        name = _name(r)
        wrong = self._wrong.get(name, ())
        decision, decided, acted = self._record.get(r.key[1], ("", 0.0, None)) if name in self._good else ("", 0.0, None)
        track = (decision, stamp(decided) if decision else "", "" if acted is None else stamp(acted))
        if not wrong:
            return Standing(r.generation, True, "InForce", "in force", self._modes.get(r.key[1], ""), *track)
        reason = "NameTaken" if name in self._taken else "Invalid"
        said = [_sentence(wrong), *(["The last good version stays in force."] if name in self._good else [])]
        return Standing(r.generation, False, reason, _joined(said, " "), self._modes.get(r.key[1], ""), *track)

    # ------------------------------------------------------------------------------------------------ what people see
    def _say(self) -> None:
        """Log what is newly wrong, and what is right again, once."""
        found = self._problems()
        for name, text in found.items():
            if self._said.get(name) != text:
                self.reloads["refused"] += 1
                log.warning("policies are not taken", what=name, problem=text)
        for name in self._said.keys() - found.keys():
            log.info("policies are right again", what=name)
        self._said = found

    def _problems(self) -> dict[str, str]:
        found = {k: _sentence(v) for k, v in self._wrong.items()}
        if self._files.problems:
            found[str(self._files.folder)] = "\n".join(map(str, self._files.problems))
        return found | ({"the cluster": self._trouble} if self._trouble else {})

    def notes(self) -> list[str]:
        """What is wrong, for the page and `/api/status`: bounded."""
        files = [f"policies: {p}" for p in self._files.problems]
        if files:
            files = ["policies: files are wrong, and the last good set of them stays in force.", *files]
        resources = [f"policies: {name}: {_sentence(problems)}" for name, problems in sorted(self._wrong.items())]
        found = [*([f"policies: {self._trouble}"] if self._trouble else []), *files, *resources]
        more = [f"policies: {len(found) - MOST_NOTES} more are wrong."] if len(found) > MOST_NOTES else []
        return found[:MOST_NOTES] + more

    def counts(self) -> dict[str, int]:
        """How many texts (files and custom resources) are in force, and how many are not taken."""
        files = len({p.file for p in self._files.problems})
        return {"in_force": len(self.in_force), "refused": files + len(self._wrong)}

    def publish(self, report: Report) -> None:
        """Remember the newest decision of each policy that came from the cluster."""
        names = {r.key[1] for r in self._there or ()}
        self._record = {k: v for k, v in self._record.items() if k in names}
        for a in report.actions:
            if a.policy in names:
                acted = a.at if a.decision == "act" else self._record.get(a.policy, ("", 0.0, None))[2]
                self._record[a.policy] = (f"{a.decision} {a.type}", a.at, acted)

    def close(self) -> None:
        """Nothing more is read or written."""

    def stop(self) -> None:
        """No more is heard of the cluster."""
        if self._resources is not None:
            self._resources.close()


def _name(r: Resource) -> str:
    return f"{RESOURCE}{r.key[0]}/{r.key[1]}"


def _sentence(problems: Sequence[Problem]) -> str:
    more = [f"{len(problems) - MOST_NOTES} more mistakes."] if len(problems) > MOST_NOTES else []
    return _joined([*(f"{p.path}: {p.text[:MOST_TEXT]}" for p in problems[:MOST_NOTES]), *more], "; ")


def _joined(parts: Sequence[str], by: str) -> str:
    """One after another; each on a line of its own where one has several, with a caret below something."""
    return ("\n" if any("\n" in p for p in parts) else by).join(parts)


def _modes(compiled: Compiled) -> dict[str, str]:
    return {p.name: p.spec.mode for p in compiled.policies}
