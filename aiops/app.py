"""The composition root: the only place that knows everybody. `run` is the daemon, `replay` the same from a recording."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from aiops import build, meaning
from aiops.capsules.play import Capsule, incident_of
from aiops.clock import WallClock
from aiops.cluster.actuator import SimulatedActuator
from aiops.cluster.checks import not_paused
from aiops.cluster.ownership import hands_off
from aiops.cluster.radius import Radius
from aiops.cluster.recorded import Recorded
from aiops.cluster.simulated import SimulatedCluster
from aiops.limits import Limits
from aiops.loop import NoActuator
from aiops.pipeline import Pipeline
from aiops.replay import Result, paced
from aiops.replay import replay as play
from aiops.schema import Budget, Config
from aiops.secretfile import header
from aiops.sinks.journal import Journal, runs
from aiops.sources.recording.folder import FolderRecording, RecordingError
from aiops.store.capsules import is_capsule
from aiops.store.models import ModelFiles
from aiops.types import Batch, Links

GOOD, FOUND_PROBLEMS = 0, 1


def run(config: Config, base: Path) -> int:
    """The daemon, until SIGTERM or SIGINT. Returns the exit code."""
    from aiops.daemon import Daemon

    return Daemon(config, WallClock()).run()


def demo(config: Config) -> int:
    """The simulated cluster on the page, until SIGTERM or SIGINT. Returns the exit code.

    Raises Problems, ConfigurationError, ListenError.
    """
    from aiops.show import serve_demo

    token = build.secret(config.token_file, header) if config.token_file else None
    return serve_demo(demo_pipeline(config), config.mode, config.listen, token)


def demo_pipeline(config: Config) -> Pipeline:
    """With the policies of the configuration, allowed to act: there is nothing real to be careful of. Raises Problems."""
    known = build.meanings(config)
    book = [replace(p, spec=p.spec.model_copy(update={"mode": "act"})) for p in build.policies(config.policies.folder, known)]
    return build.pipeline(known, book, config.mode, config.detectors, config.budget.incidents, config.budget.per_s)


def replay(folder: Path, policies: Path | None = None, as_json: bool = False, speed: float = 0.0, serve: bool = False,
           verify: bool = False, alerts_out: Path | None = None, listen: str = "127.0.0.1:8750",
           shown: Path | None = None) -> int:
    """A recording, or the journal of a run, through the pipeline. Nothing outside this process is touched. shown: what people
    called it.

    Raises RecordingError, Problems: unreadable input.
    """
    player = Player(folder, policies)
    if serve:
        from aiops.show import serve_replay

        return serve_replay(player, speed or 20.0, listen)
    with progress(len(player), not as_json) as advance:
        result = player.play(speed, advance)
    if alerts_out:
        _write_alerts(alerts_out, result, player.alert_count)
    problems = _verified(folder, result) if verify else []
    if as_json:
        json.dump(result.json(), sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        from aiops.summary import print_summary

        print_summary(result, player.skipped())
    for problem in problems:
        sys.stderr.write(f"{shown or folder}: {problem}\n")
    return FOUND_PROBLEMS if problems else GOOD


class Player:
    """One recording or journal with everything that is needed to play it once.

    run: of the journal, the newest if none is named. budget: another one than that of the run (of a recording: 1/1d).
    verdicts: what people said of incidents in what was played so far, `false_alarm` or `useful` by id. limits: of blast
    radius, for a recording; a journal has what became of its actions.
    """

    def __init__(self, folder: Path, policies: Path | None, run: str | None = None, budget: Budget | None = None,
                 limits: Limits | None = None) -> None:
        self.folder, self._others = folder, policies is not None
        self._recorded: Recorded | None = None
        self.verdicts: dict[str, str] = {}
        self._capsule = Capsule(folder, policies, budget) if is_capsule(folder) else None
        self._source: Journal | FolderRecording = (
            self._capsule.source if self._capsule else Journal(folder, run) if runs(folder) else FolderRecording(folder))
        self.budget = budget or Budget()
        known = meaning.shipped()
        if self._capsule:
            self.budget, self.pipeline = self._capsule.budget, self._capsule.pipeline
            self.links = self._capsule.source.links() or Links()
            self.actuator: NoActuator | SimulatedActuator = NoActuator()
        elif isinstance(self._source, Journal):
            about = json.loads(str(self._source.header.get("config", "{}")))
            config = Config.model_validate(about) if about else None
            if config:
                self.budget = budget or config.budget
                config = config.model_copy(update={"budget": self.budget})
            self.pipeline = journal_pipeline(self._source, policies, config)
            self.actuator = NoActuator()
            self.links = Links()
        else:
            self.links = self._source.links() or Links()
            self.pipeline = build.pipeline(known, build.policies(policies, known), "act",
                                           incidents=self.budget.incidents, per_s=self.budget.per_s)
            cluster = SimulatedCluster.from_links(self.links)
            radius = Radius(limits or Limits(), lambda: cluster.now, fresh_s=0.0)
            self.actuator = SimulatedActuator(cluster, [not_paused, hands_off, radius])
            self._recorded = Recorded(cluster)

    def __len__(self) -> int:
        """Batches to come; 0 where that is not known before."""
        return len(self._source) if isinstance(self._source, FolderRecording) else 0

    @property
    def alert_count(self) -> int:
        return self._source.alert_lines if isinstance(self._source, FolderRecording) else 0

    def play(self, speed: float = 0.0, advance: Callable[[], None] = lambda: None,
             wait: Callable[[float], None] | None = None, sinks: tuple[object, ...] = ()) -> Result:
        """Plays it to the end; `advance` is called after each batch."""
        pace = wait or paced(WallClock(), speed)

        def each(at: float) -> None:
            pace(at)
            advance()
        return play(self.folder.name, self._batches(), self.pipeline, self.actuator, sinks, each)  # type: ignore[arg-type]

    def _batches(self) -> Iterator[Batch]:
        for batch in (self._capsule or self._source).batches():
            batch = replace(batch, policies=None) if self._others else batch
            if self._recorded:
                self._recorded.tell(batch)
            self.verdicts.update((c.target, c.verb) for c in batch.commands if c.verb in ("false_alarm", "useful"))
            yield batch

    def skipped(self) -> dict[str, int]:
        """What could not be read, by reason."""
        if isinstance(self._source, FolderRecording):
            return {k: n for k, n in sorted(self._source.skipped.items()) if n}
        found = {"torn lines": self._source.torn, "gaps": self._source.gaps, "unordered batches": self._source.unordered}
        return {k: n for k, n in found.items() if n}


def journal_pipeline(journal: Journal, policies: Path | None, config: Config | None) -> Pipeline:
    """The pipeline of the run that wrote the journal: its configuration, and its policies unless others are named."""
    if config is None:
        raise RecordingError(f"{journal.folder}: the journal does not say with which configuration it was made.")
    about = journal.header
    known = build.meanings_from(about.get("packs", {}))
    beyond = config.policies.beyond
    book = build.policies(policies, known) if policies else build.policies_from(about.get("policies", {}), known, beyond)
    pipeline = build.pipeline(known, book, config.mode, config.detectors, config.budget.incidents, config.budget.per_s,
                              build.masks(config), beyond, config.topology.calls, build.slos(config))
    pipeline.costs.prices = config.prices
    if about.get("policy_memory"):
        pipeline.decider.restore(about["policy_memory"])
    if about.get("mask_memory"):
        pipeline.masks.restore(about["mask_memory"])
    if about.get("incident_memory"):
        pipeline.past.restore(about["incident_memory"])
    learned = ModelFiles(journal.beginning, repair=False).read()
    if learned is not None:
        pipeline.restore(learned, float(about["started_at"]))
    elif about.get("learned_at") is not None:
        sys.stderr.write(f"note: {journal.beginning}: what the run had learned before is not there: it is judged without it, "
                         "and the digest will be another.\n")
    return pipeline


@contextmanager
def progress(total: int, wanted: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    if not wanted or not sys.stderr.isatty() or not total:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("replaying", total=total)
        yield lambda: bar.advance(task)


def _write_alerts(path: Path, result: Result, count: int) -> None:
    with path.open("w", encoding="utf-8") as out:
        _alert_lines(out, result, count)


def _alert_lines(out: TextIO, result: Result, count: int) -> None:
    for index in range(count):
        out.write(json.dumps({"index": index, "incident": result.incident_of(index)}) + "\n")


def _verified(folder: Path, result: Result) -> list[str]:
    from aiops import verify

    if is_capsule(folder):
        return verify.same_incident(incident_of(folder), list(result.incidents.values()))
    expect = verify.read(folder)
    if expect is None:
        raise RecordingError(f"{folder}: has no expect.yaml, so there is nothing to verify against.")
    return verify.differences(expect, list(result.incidents.values()))
