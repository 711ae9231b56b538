"""The live shell: polls sources on their own schedule, makes a batch per tick, journals it, and steps the pipeline.

Everything here is about time and threads; what is decided is decided in `Pipeline.step` alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import structlog

from aiops.beat import Beat
from aiops.humanise import duration
from aiops.intake import Intake
from aiops.interfaces import Actuator, Clock, Samples, Sink
from aiops.loop import advance, with_outcomes
from aiops.meaning import parse_labels
from aiops.pipeline import Pipeline
from aiops.types import Action, Batch, Outcome, Report, Series

log = structlog.get_logger("aiops.live")
POLL_END_S, STEP_END_S = 1.0, 3.0
"""A poll may hang in a time-out of minutes: the end of the daemon waits no longer than this for polls, and for a step."""
PATIENCE_S, AGAIN_S, WAIT_S = 300.0, 30.0, 1.0
"""So long a source whose history cannot be read is tried again, at its own pace; then the present goes on without it. AGAIN_S
where an earlier run has learned: its history is the gap since then, and not worth being blind for."""
WAITING = "its history is read first: until then nothing is judged. After {} without any the present goes on without it"
FIRST_S = 1.0
"""The first interval ends so soon."""
PAST_S, PAST_TICKS = 60.0, 3.0
"""A batch that is older than this many seconds, and ticks, is history: what it asks for is not carried out."""


class Polled(Protocol):
    """A source under supervision: never raises, backs off by itself."""

    @property
    def name(self) -> str: ...
    @property
    def interval_s(self) -> float: ...
    @property
    def filled(self) -> bool: ...
    def poll(self, into: Samples) -> bool: ...
    def history(self, into: Samples) -> Iterator[float]: ...
    def status(self) -> dict[str, Any]: ...
    def close(self) -> None: ...


class Historian:
    """The actuator of history: refuses every action, because the evidence for it has passed."""

    def __init__(self) -> None:
        self._outcomes: list[Outcome] = []

    def submit(self, actions: Sequence[Action]) -> None:
        reason = "not done: it was decided on telemetry of the past, read after an outage or at the start"
        self._outcomes += [Outcome(a.id, "refused", a.at, reason) for a in actions]

    def collect(self) -> Sequence[Outcome]:
        outcomes, self._outcomes = self._outcomes, []
        return outcomes


class Live:
    """One daemon. `start` returns at once; `stop` ends polling, takes a last step and closes the sources.

    `sinks` hear every report before anything is done, `watchers` after that; `receivers` (people) only those about now.
    recorded: what an earlier run saw and did not learn from any more; it is gone through first, like the history of the sources.
    patience_s: so long that history is waited for where it cannot be read. policies: asked in every tick for the set of policies
    that is in force from now on, None while it is the same.
    """

    def __init__(self, pipeline: Pipeline, sources: Sequence[Polled], intake: Intake, actuator: Actuator,
                 sinks: Sequence[Sink], clock: Clock, tick_s: float, journal: Callable[[Batch], object],
                 timed: Callable[[float], None] = lambda seconds: None, receivers: Sequence[Sink] = (),
                 recorded: Iterable[Batch] = (), patience_s: float = PATIENCE_S,
                 policies: Callable[[float], Mapping[str, str] | None] = lambda now: None,
                 watchers: Sequence[Sink] = ()) -> None:
        self.pipeline, self.sources, self.intake = pipeline, sources, intake
        self._actuator, self._sinks, self._clock, self._tick_s = actuator, sinks, clock, tick_s
        self._journal, self._timed, self._receivers, self._watchers = journal, timed, receivers, watchers
        self._was_past = False
        self._recorded, self._patience_s, self._policies = recorded, patience_s, policies
        self.lock = threading.RLock()
        self.last: Report | None = None
        self.started_at = clock.now()
        self._scheduler: Any = None
        self._beats = threading.Thread(target=self._beat, name="tick", daemon=True)
        self._caught_up = False
        self._stopping = threading.Event()
        self.failed_steps = 0
        self._step_s, self._batch_samples, self._slow = 0.0, 0, False
        self._historian = Historian()
        self._ended = False

    def start(self) -> None:
        """One job a source, and a thread for the tick; a job that is late runs once, never twice at a time."""
        from apscheduler.schedulers.background import BackgroundScheduler

        self._scheduler = BackgroundScheduler(
            timezone=UTC, executors={"default": {"type": "threadpool", "max_workers": max(1, len(self.sources))}},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None})
        for source in self.sources:
            self._scheduler.add_job(self._poll, "interval", args=[source], seconds=source.interval_s,
                                    id=f"poll:{source.name}", next_run_time=self._soon(0.0))
        self._scheduler.start()
        self._beats.start()

    def _soon(self, after_s: float) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC) + timedelta(seconds=after_s)

    def _poll(self, source: Polled) -> None:
        """Not before the source's history is in: what was polled already would not be asked for again."""
        if (self._caught_up or source.filled) and source.poll(self.intake):
            self.intake.news.set()

    def _beat(self) -> None:
        """A tick at the end of each interval, until the end."""
        beat = Beat(self._tick_s, self._clock.monotonic() + FIRST_S)
        while not self._stopping.is_set():
            came = self.intake.news.wait(beat.left_s(self._clock.monotonic()))
            self.intake.news.clear()
            self._tick_where_over(beat, came, self._clock.monotonic())

    def _tick_where_over(self, beat: Beat, came: bool, now: float) -> None:
        complete = self.intake.complete()
        if came:
            beat.hear(now)
        if not beat.over(now, complete):
            return
        beat.close(now, complete)
        try:
            with self.lock:
                if not self._stopping.is_set():
                    self.tick()
        except Exception:
            log.exception("a tick failed; the next one goes on")

    def tick(self) -> None:
        """Everything that arrived since the last tick, through the pipeline. A failure is logged, never fatal."""
        with self.lock:
            if not self._caught_up:
                self._catch_up()
            self._reload()
            for batch in self.intake.drain(self._clock.now(), tuple(self._actuator.collect())):
                self._step(batch)

    def _reload(self) -> None:
        try:
            texts = self._policies(self._clock.now())
        except Exception:
            log.exception("policies cannot be looked at; those of before stay in force")
            return
        if texts is not None:
            self.intake.policies(texts)

    def _catch_up(self) -> None:
        """The history of all sources in time order, before anything live is judged. Whoever fails for long is left out."""
        began = self._clock.now()
        if names := [s.name for s in self.sources if not s.filled]:
            log.info("history is read first; nothing is judged before", sources=names)
        running = {s.name: self._history(s) for s in self.sources} | {"": self._heard_before()}
        reached = {name: end for name, feed in running.items() if (end := next(feed, None)) is not None}
        while reached and not self._stopping.is_set():
            for batch in self.intake.drain_history(min(*reached.values(), max(began, self._clock.now() - 2 * self._tick_s))):
                self._step(batch, past=True)
            slowest = min(reached, key=lambda name: (reached[name], name))
            end = next(running[slowest], None)
            reached = {k: v for k, v in reached.items() if k != slowest} if end is None else {**reached, slowest: end}
        self._caught_up = True

    def _history(self, source: Polled) -> Iterator[float]:
        """All of a source's history; where it fails, on from there when it is due again, until patience is at its end."""
        reached, since = float("-inf"), self._clock.now()
        while not self._stopping.is_set():
            for end in source.history(self.intake):
                if end > reached:
                    reached, since = end, self._clock.now()
                    yield end
            now = self._clock.now()
            if source.filled or now - since >= self._patience_s:
                return
            self._clock.sleep_until(now + WAIT_S)

    def _heard_before(self) -> Iterator[float]:
        """The samples of the recorded batches once more; their lines, events and outcomes are over."""
        series: dict[int, tuple[Series, dict[str, str]]] = {}
        for batch in self._recorded:
            for number in batch.retired.tolist():
                series.pop(number, None)
            series |= {s.id: (s, parse_labels(s.labels)) for s in batch.new_series}
            for k, time, value in zip(batch.series.tolist(), batch.time.tolist(), batch.value.tolist(), strict=True):
                if k in series:  # the journal may have holes
                    s, labels = series[k]
                    self.intake.sample(time, s.entity, s.metric, labels, value, s.kind)
            yield batch.at

    def _step(self, batch: Batch, past: bool = False) -> None:
        if self._ended:
            return
        began = self._clock.monotonic()
        batch = with_outcomes(batch, self._historian.collect())
        self._journal(batch)
        past = past or self._clock.now() - batch.at > max(PAST_S, PAST_TICKS * self._tick_s)
        try:
            actuator = self._historian if past else self._actuator
            self.last = advance(self.pipeline, batch, actuator, self._sinks, self._watchers)
            self._tell_people(self.last, past)
        except Exception:
            self.failed_steps += 1
            self.intake.links_again()
            log.exception("step failed; the batch is in the journal", at=batch.at)
        self._step_s, self._batch_samples = self._clock.monotonic() - began, len(batch.series)
        self._timed(self._step_s)
        if not past:
            self._tell_slow(self._step_s > self._tick_s)

    def _tell_slow(self, slow: bool) -> None:
        """Once when steps begin to take longer than the time between them, and once when they no longer do."""
        if slow != self._slow:
            tell = log.warning if slow else log.info
            tell("a step takes longer than the interval; what comes in waits" if slow else "steps are in time again",
                 step_s=round(self._step_s, 2), interval_s=self._tick_s)
        self._slow = slow

    def _tell_people(self, report: Report, past: bool) -> None:
        """Nobody is woken for history; what is still open when it ends is told once."""
        if not past:
            known = {i.id for i in report.incidents}
            left = [i for i in self.pipeline.book.open() if i.id not in known] if self._was_past else []
            for receiver in self._receivers:
                receiver.publish(replace(report, incidents=(*left, *report.incidents)))
        self._was_past = past

    def states(self) -> list[dict[str, Any]]:
        """How each source is, with a note on those whose history everything waits for."""
        states = [s.status() for s in self.sources]
        for source, state in zip(self.sources, states, strict=True):
            if not (self._caught_up or source.filled):
                state["notes"] = [*state["notes"], WAITING.format(duration(self._patience_s))]
        return states

    def readings(self) -> dict[str, float]:
        """How the daemon itself is doing, in the names of the pack `aiops`."""
        dropped = self.intake.dropped_total() + (sum(self.last.counts.dropped.values()) if self.last else 0)
        failures = sum(int(s.status()["failures"]) for s in self.sources)
        return {"aiops_step_seconds": self._step_s, "aiops_batch_samples": float(self._batch_samples),
                "aiops_source_failures_total": float(failures), "aiops_dropped_samples_total": float(dropped)}

    def stop(self, before_last: Callable[[], None] = lambda: None) -> bool:
        """Stop polling, call `before_last`, take the last step, close the sources. Nothing is stepped after that.

        False where a step hung for so long that the last one was not taken; what waited for it is in the journal then.
        """
        self._stopping.set()
        self.intake.news.set()
        if self._scheduler is not None:
            end = threading.Thread(target=self._scheduler.shutdown, name="scheduler-end", daemon=True)
            end.start()
            end.join(POLL_END_S)
        before_last()
        orderly = self._last_step()
        for source in self.sources:
            source.close()
        return orderly

    def _last_step(self) -> bool:
        free = self.lock.acquire(timeout=STEP_END_S)
        try:
            if free:
                self.tick()
            self._ended = True
        finally:
            if free:
                self.lock.release()
        if not free:
            self._write_down()
        return free

    def _write_down(self) -> None:
        """Senders were told that it was taken: the next daemon finds it in the journal."""
        batches = self.intake.drain(self._clock.now())
        for batch in batches:
            self._journal(batch)
        log.error("a step did not come to its end; what came in after it is in the journal only",
                  waited_s=STEP_END_S, samples=sum(len(b.series) for b in batches))
