"""The running daemon: all parts put together, started in order, stopped in order."""

from __future__ import annotations

import gc
import shutil
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import structlog

from aiops import __version__, build, chain, feeds, yamlfile
from aiops.build import ConfigurationError
from aiops.clock import WallClock
from aiops.cluster.brake import Brake, Watched
from aiops.desk import Desk, Vitals
from aiops.intake import Intake
from aiops.interfaces import Sink
from aiops.live import AGAIN_S, PATIENCE_S, Live
from aiops.loop import NoActuator, Recorded
from aiops.memory import CostMemory, ModelMemory, PolicyMemory, RevisionMemory, remembered
from aiops.pipeline import Decider, Pipeline
from aiops.policy.answers import too_few
from aiops.reload import Policies
from aiops.schema import Config
from aiops.secretfile import header
from aiops.sinks.audit import Audit
from aiops.sinks.capsules import Bounds, Capsules, Origin
from aiops.sinks.console import Console
from aiops.sinks.journal import Journal, JournalError, JournalWriter, runs
from aiops.sinks.metrics import Metrics
from aiops.sources.kubernetes.api import Access
from aiops.sources.kubernetes.policies import PolicyResources
from aiops.sources.own import OwnSource
from aiops.sources.remote_write import RemoteWriteSource
from aiops.store.capsules import recover
from aiops.store.models import INDEX, ModelFiles
from aiops.store.sqlite import Store
from aiops.types import Batch, Command
from aiops.unused import unused
from aiops.web.app import create_app
from aiops.web.server import Server

log = structlog.get_logger("aiops")
POLICIES, MASKS, PAST = "policy-memory.json", "mask-memory.json", "incident-memory.json"
SEGMENT_BYTES = 64 << 20
RARELY = 100_000, 20, 100
"""Garbage is looked for after so many new objects: a million series are made of millions, and none of them is garbage."""
POLICIES_S = 5.0
"""So long the cluster has to tell its policies before the first step; then those of before the restart hold until it does."""
RECORDED_S = 3600.0
"""At most so much of a killed run is gone through again: the daemon should be watching the present."""


class Daemon:
    """Made from a configuration; `run` blocks until it is told to stop."""

    def __init__(self, config: Config, clock: WallClock) -> None:
        self.config, self.clock = config, clock
        self.notes = [f"{yamlfile.dollar(place)}: {text}" for place, text in unused(config)]
        self._stop = threading.Event()

    def run(self) -> int:
        """0 after an orderly stop, on SIGTERM or SIGINT; SIGHUP is ignored. Raises what a part that cannot start raises."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        gc.set_threshold(*RARELY)
        self._prepare()
        try:
            self._start()
            build.warm(self.config.detectors)
            self._stop.wait()
        finally:
            self._end()
        return 0

    def _prepare(self) -> None:
        """Makes all parts. The store comes first: its lock keeps a second daemon away from everything in the folder."""
        config, clock, now = self.config, self.clock, self.clock.now()
        known = build.meanings(config)
        beyond, texts = config.policies.beyond, build.policy_texts(config.policies.folder)
        build.policies_from(texts, known, beyond, config.policies.folder or build.SHIPPED_POLICIES)
        folder(config.store)
        self.store = Store(config.store / "aiops.sqlite")
        self.metrics = Metrics(__version__)
        self.policies = Policies(config.policies.folder, known, texts, beyond, self._policy_resources(),
                                 config.store / "policy-resources.json")
        book = build.policies_from(self.policies.in_force, known, beyond)
        pipeline = build.pipeline(known, book, config.mode, config.detectors, config.budget.incidents, config.budget.per_s,
                                  build.masks(config), beyond, config.topology.calls, build.slos(config))
        self.memory = PolicyMemory(config.store / POLICIES, pipeline.decider)
        self.masks = RevisionMemory(config.store / MASKS, pipeline.masks)
        self.past = RevisionMemory(config.store / PAST, pipeline.past)
        pipeline.costs.prices = config.prices
        self.costs = CostMemory(config.store / "cost-memory.json", pipeline.costs)
        self.brake = _brake(config.store / "stop.json")
        self.models = ModelMemory(ModelFiles(config.store / "models"), pipeline, now)
        self.actuator = self._actuator(pipeline.decider)
        recorded = self._recorded()
        self.journal = self._journal(now)
        self.receivers = build.receivers(config, clock)
        vitals = Vitals(pipeline)
        console = [Console()] if build.has_console(config) else []
        self.capsules = self._capsules(pipeline)
        self.audit = Audit(config.store / "audit", config.audit.max_bytes, config.audit.keep_s, config.audit.redact_ips)
        sinks: list[Sink] = [self.audit, self.capsules, self.memory, self.store]  # capsules keep what was remembered before
        watchers: list[Sink] = [self.masks, self.past, self.metrics, vitals, self.policies, *console]
        own = feeds.Source(OwnSource(lambda: self.live.readings(), interval_s=max(config.tick_s, 5.0)), clock)
        intake = Intake(config.tick_s, config.series.max)
        for command in self.brake.unheard(pipeline.decider.stops.standing, now):
            intake.command(command)
        if not pipeline.decider.leads and not getattr(self.actuator, "follows", str)():  # it was one of several
            intake.command(Command(now, "lead", "", "a restart"))
        sources = [*feeds.sources(config, clock, known, self.models.since), own, *self._stops(intake)]
        self.live = Live(pipeline, sources, intake, Recorded(self.actuator, self.audit), sinks, clock, config.tick_s, self._write,
                         self.metrics.step, [*self.receivers, self.models, self.costs], recorded,
                         PATIENCE_S if self.models.since is None else AGAIN_S, self.policies.refresh, watchers)
        token = build.secret(config.token_file, header) if config.token_file else None
        tokens = build.tokens(config)
        desk = Desk(self.store, vitals, self.metrics, config.mode, now, clock.now, self._states,
                    self.live.intake.command, token,
                    notes=[*self.notes, *too_few(book, len(tokens))], capsules=(self.capsules.folder, self.capsules.status),
                    refused=lambda: [*self._unwritten(), *intake.notes(), *self.policies.notes(),
                                     *getattr(self.actuator, "notes", list)()], brake=self.brake,
                    for_all=build.stop_for_all(config), files=(config.store, self._learned_into), tokens=tokens,
                    follows=getattr(self.actuator, "follows", str))
        self._measure(intake)
        self.pushed = [s for s in sources if hasattr(s.source, "pushes")]
        pushes = {path: take for s in reversed(self.pushed) for path, take in s.source.pushes.items()}  # type: ignore[attr-defined]
        self.remote_write = next((s.source for s in sources if isinstance(s.source, RemoteWriteSource)), None)
        if self.remote_write:
            self._count(self.remote_write)
        app = create_app(desk, pushes=pushes, receiver=self.remote_write)
        self.metrics.watch("aiops_http_refused", "Requests that were refused before their content was looked at.", "reason",
                           lambda: app.state.refused)
        self.server = Server(app, *config.address)

    def _measure(self, intake: Intake) -> None:
        """What the parts count shows in /metrics."""
        self.metrics.watch("aiops_stopped", "1 where somebody says that nothing is to be decided or done, by who says so.", "by",
                           self.brake.counted, gauge=True)
        self.metrics.watch("aiops_policies", "Policy files and resources, by whether they are in force.", "state",
                           self.policies.counts, gauge=True)
        self.metrics.watch("aiops_policy_reloads", "Changes of policies while the daemon runs.", "result",
                           lambda: self.policies.reloads)
        self.metrics.watch("aiops_series_refused", "How often a new series was left out.", "reason",
                           lambda: intake.catalogue.refused)
        self.metrics.watch("aiops_intake_dropped", "What did not fit before the next step, by what it was.", "kind",
                           lambda: intake.dropped)
        if hasattr(self.actuator, "leads"):
            self.metrics.watch("aiops_leader", "Whether this replica carries out actions: 1 it does.", "lease",
                               self.actuator.leads, gauge=True)
        self.metrics.watch("aiops_audit_entries", "Entries of the audit record, and those that could not be written.", "result",
                           self.audit.counts)

    def _stops(self, intake: Intake) -> list[feeds.Source]:
        """Looks once before anything is done whether somebody says stop, and then again and again where that may change."""
        stop = self.config.stop
        watched = Watched(build.stop_places(self.config), self.brake, intake.command, min(self.config.tick_s, 15.0))
        try:
            watched.poll(self.clock.now(), None)
        except RuntimeError as e:
            log.warning("whether everything is to be stopped cannot be read yet", problem=str(e))
        return [feeds.Source(watched, self.clock)] if stop.file or stop.config_map else []

    def _count(self, pushed: RemoteWriteSource) -> None:
        """What is pushed shows in /metrics."""
        watch = self.metrics.watch
        watch("aiops_remote_write_requests", "Requests of remote-write.", "status", lambda: pushed.requests)
        watch("aiops_remote_write_samples", "Samples pushed, by what became of them.", "result", lambda: pushed.counts)
        watch("aiops_remote_write_skipped", "Samples pushed that were not taken.", "reason", lambda: pushed.skipped)
        watch("aiops_remote_write_refused", "Requests of remote-write of which nothing was taken, by reason.", "reason",
              lambda: pushed.refused)
        watch("aiops_remote_write_series", "Series whose labels are known.", "decoder", lambda: {pushed.decoder: pushed.known()},
              gauge=True)

    def _about(self) -> dict[str, str]:
        """What this run is, for the audit record: the hashes say whether another run had the same."""
        config = self.config
        whole = config.model_dump(mode="json", by_alias=True)
        return {"version": __version__, "mode": config.mode, "config": chain.fingerprint(whole),
                "policies": chain.fingerprint(build.policy_texts(config.policies.folder))}

    def _recorded(self) -> Iterable[Batch]:
        """What a killed run journalled after it last wrote down what it had learned."""
        folder, since, found = self.config.store / "journal", self.models.since, self.models.found
        if since is None or found is None or found.ended or not runs(folder):
            return ()
        try:
            journal = Journal(folder)
            return journal.since(max(since, journal.last_at() - RECORDED_S))
        except (JournalError, OSError) as e:
            log.warning("the journal of the last run cannot be read", problem=str(e))
            return ()

    def _policy_resources(self) -> PolicyResources | None:
        """The RemediationPolicies of the cluster of the first kubernetes source, where they are asked for."""
        source = next((s.kubernetes for s in self.config.sources if s.kubernetes), None)
        if not self.config.policies.kubernetes or source is None:
            return None
        return PolicyResources(source.namespaces, Access(source.kubeconfig, source.context))

    def _journal(self, now: float) -> JournalWriter:
        """The journal of this run; what it knows at the beginning is put beside it, so that a replay begins alike."""
        config, found = self.config, self.models.found
        about = {"started_at": now, "version": __version__, "config": config.model_dump_json(by_alias=True),
                 "policies": dict(self.policies.in_force), "packs": build.pack_texts(config.packs),
                 "policy_memory": self.memory.restored, "mask_memory": self.masks.restored,
                 "incident_memory": self.past.restored, "learned_at": found and found.at}
        most = config.journal.max_bytes
        segment = min(SEGMENT_BYTES, most // 4)
        journal = JournalWriter(config.store / "journal", about, segment, sys.maxsize, most - segment, config.journal.keep_s)
        if found:
            self.models.link_into(journal.beginning)
        return journal

    def _capsules(self, pipeline: Pipeline) -> Capsules:
        """Keeps of each incident what came in around it, out of this run's journal."""
        store, journal = self.config.store, self.journal
        recover(store / "capsules")
        origin = Origin(journal.folder, journal.run, self.config.tick_s, ModelFiles(store / "models", repair=False).link_into,
                        lambda: {"policy_memory": remembered(store / POLICIES), "mask_memory": remembered(store / MASKS)},
                        lambda: pipeline.alerting.level)
        return Capsules(store / "capsules", origin, Bounds(self.config.capsules.keep, self.config.capsules.max_bytes))

    def _learned_into(self, folder: Path) -> None:
        """All that was learned, as it was last saved: what a store needs to go on with it."""
        if (self.config.store / "models" / INDEX).exists():
            ModelFiles(self.config.store / "models", repair=False).link_into(folder / "models")
        for name in (POLICIES, MASKS, PAST):
            if (self.config.store / name).exists():
                shutil.copy2(self.config.store / name, folder / name)

    def _states(self) -> list[dict[str, Any]]:
        return self.live.states()

    def _actuator(self, decider: Decider) -> Any:
        """Only a daemon that may act, or ask, holds a way to change the cluster."""
        kubernetes = next((s.kubernetes for s in self.config.sources if s.kubernetes), None)
        if self.config.mode == "observe" or kubernetes is None:
            return NoActuator()
        return build.live_actuator(self.clock, self.config.store / "actions.sqlite", kubernetes.kubeconfig, kubernetes.context,
                                   decider.awaited(), self.config.limits, self.brake, self.config.stop.config_map,
                                   self.config.webhooks, build.lease(self.config), decider,
                                   lambda command: self.live.intake.command(command))

    def _write(self, batch: Batch) -> None:
        before = self.journal.problem
        written = self.journal.write(batch)
        if not written and not before:
            log.error("journal", problem=self.journal.problem)
        elif written and before:
            log.info("the journal is written again; what came meanwhile is missing in it", batches=self.journal.failed)

    def _unwritten(self) -> list[str]:
        """What people should know while the journal cannot be written: the watch goes on, and nobody would notice."""
        problem = self.journal.problem
        return [f"{problem}. A restart or a replay will not know what happens now. Free space there, or set another store."] \
            if problem else []

    def _start(self) -> None:
        for note in self.notes:
            log.warning("has no effect", setting=note)
        if self.store.notice:
            log.warning("store", notice=self.store.notice)
        for form in self.store.interrupt_open(self.clock.now()):
            for receiver in self.receivers:
                receiver.tell(form, self.clock.now())
        self.audit.began(self.clock.now(), self._about())
        self.capsules.resume(self.store.incident)
        for receiver in self.receivers:
            receiver.start()
        if hasattr(self.actuator, "start"):
            self.actuator.start()
        self.server.start()
        self.policies.wait(POLICIES_S)
        self.live.start()
        if self.remote_write:
            log.info("remote-write is received", decoder=self.remote_write.decoder)
        sys.stderr.write(f"aiops {__version__}: {self.config.mode} mode, {len(self.live.sources)} sources. "
                         f"Page: {self.server.url}\n")
        sys.stderr.flush()

    def _before_last(self) -> None:
        """What is taken until now is in the last step; what came after it would be lost."""
        for source in self.pushed:
            source.close()
        if self.remote_write:
            self.remote_write.close()
        getattr(self.actuator, "stop", lambda: None)()

    def _end(self) -> None:
        """In the order of the flow: input, actions (their outcomes are in the last step), page, journal, messages, store."""
        orderly = self.live.stop(self._before_last)
        self.server.stop()
        self.journal.close(self.live.pipeline.book.digest() if orderly else None)
        self.models.end(orderly)
        self.costs.close()
        self.audit.ended(self.clock.now(), orderly)
        self.capsules.close()
        self.policies.stop()
        for receiver in self.receivers:
            receiver.close()
        self.store.close()


def _brake(path: Path) -> Brake:
    try:
        return Brake(path)
    except ValueError as e:
        raise ConfigurationError(f"store: {e}") from None


def folder(path: Path) -> None:
    """Makes the store's folder. Raises ConfigurationError naming path and remedy."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigurationError(f"store: {path} cannot be made: {(e.strerror or str(e)).lower()}. "
                                 "Set store to a folder that this user may write.") from None
