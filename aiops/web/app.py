"""The HTTP interface: pages, JSON, writes, probes and metrics, over a View."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import IO, Annotated, Any, Literal

import msgspec
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from aiops.web import forms, pages, push
from aiops.web.guard import LOOPBACK, Guard, unauthorised
from aiops.web.view import CostWindow, NotPossible, ReadinessState, View
from aiops.web.write import PATH, Receiver, WriteEndpoint

JSON = dict[str, Any]
MOST_LISTENERS = 100
BLOCK = 1 << 18
NAMELESS = "tokenFile"
"""All who show the token without a name are one, where there are others with names."""
_KNOWN: dict[int | str, JSON] = {404: {"model": forms.Error, "description": "Not known."}}
_WRITES: dict[int | str, JSON] = {
    **_KNOWN, 401: {"model": forms.Error, "description": "A token is needed."},
    403: {"model": forms.Error, "description": "Another origin."},
    409: {"model": forms.Error, "description": "Understood, and no longer possible."},
}
_CAPSULE: dict[int | str, JSON] = {
    200: {"content": {"application/gzip": {}}}, **{k: _WRITES[k] for k in (401, 404, 409)}}


def create_app(view: View, poll_s: float = 1.0, pushes: Mapping[str, push.Receiver] | None = None,
               receiver: Receiver | None = None) -> FastAPI:
    """The app over a view. poll_s: how often listeners of /events look for a new revision; pushes: who takes a POST where;
    receiver: of remote-write.

    `app.state.hosts` are the names under which it is served (Server widens them beyond loopback); `app.state.refused` counts by
    reason the requests that were refused before their content was looked at.
    """
    app = FastAPI(title="aiops", version=str(view.status().get("version", "")), docs_url=None, redoc_url=None,
                  description="Incidents, their causes, and what is done about them.")
    app.state.view, app.state.hosts, app.state.closing, app.state.listeners = view, LOOPBACK, False, 0
    refused: Counter[str] = Counter()
    app.state.refused = refused
    app.add_middleware(Guard, state=app.state)
    app.router.routes.insert(0, Route(PATH, WriteEndpoint(receiver, refused), include_in_schema=False))
    app.mount("/static", _Static(directory=pages.HERE / "static"), name="static")
    _errors(app)
    _pages(app, view)
    _reads(app, view)
    _writes(app, view)
    _probes(app, view)
    _events(app, view, poll_s)
    pushed = push.Pushed(refused)
    for path, take in (pushes or {}).items():
        app.router.routes.insert(0, Route(path, pushed.endpoint(take), include_in_schema=False))
    return app


class _Static(StaticFiles):
    """Our own files; their address changes with their content."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if response.status_code == 200:
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def _errors(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def said(_: Request, e: HTTPException) -> Response:
        return JSONResponse({"error": str(e.detail)}, e.status_code, getattr(e, "headers", None))

    @app.exception_handler(RequestValidationError)
    async def unusable(_: Request, e: RequestValidationError) -> Response:
        problems = "; ".join(f"{'.'.join(str(p) for p in p_['loc'])}: {p_['msg']}" for p_ in e.errors())
        return JSONResponse({"error": problems}, 422)


    @app.exception_handler(Exception)
    async def failed(request: Request, _: Exception) -> Response:
        return JSONResponse({"error": f"{request.url.path} could not be answered; the daemon's log says why"}, 500)


def _pages(app: FastAPI, view: View) -> None:
    @app.get("/", include_in_schema=False)
    def overview() -> HTMLResponse:
        return HTMLResponse(pages.overview(view))

    @app.get("/learned", include_in_schema=False)
    def learned() -> HTMLResponse:
        return HTMLResponse(pages.learned(view))

    @app.get("/incidents/{name:path}", include_in_schema=False)
    def incident(name: str) -> HTMLResponse:
        form = view.incident(name)
        return HTMLResponse(pages.incident(view, form)) if form else HTMLResponse(pages.missing(view, name), 404)


def _reads(app: FastAPI, view: View) -> None:
    @app.get("/api/incidents", responses={200: {"model": forms.Incidents}}, tags=["incidents"])
    def incidents(
        state: Annotated[Literal["open", "closed"] | None, Query(description="Both when left out.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100, offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        """Incidents, the open before the closed, then newest first."""
        return _json({"incidents": list(view.incidents(state, limit, offset))})

    @app.get("/api/incidents/{name:path}", responses={200: {"model": forms.IncidentWithPoints}, **_KNOWN}, tags=["incidents"])
    def incident(name: str) -> Response:
        """One incident, with the points that its plots show."""
        form = view.incident(name)
        return _json(form) if form else _unknown("incident", name)

    @app.get("/api/readiness", responses={200: {"model": forms.ReadinessPage}}, tags=["status"])
    def readiness(
        entity: Annotated[str, Query(max_length=500, description="A part of the entity.")] = "",
        state: Annotated[ReadinessState | None, Query(description="All when left out.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100, offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        """Which signals are judged by now, and why the others are not."""
        return _json(view.readiness(entity, state or "", limit, offset))

    @app.get("/api/topology", responses={200: {"model": forms.TopologyPage}}, tags=["status"])
    def topology(
        at: Annotated[float | None, Query(ge=0, le=1e11, allow_inf_nan=False, description="As it was then, if not now.")] = None,
        entity: Annotated[str, Query(max_length=500, description="A part of the name of one of its ends.")] = "",
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100, offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        """Who depends on whom, who says so, since when, and when it was last confirmed."""
        return _json(view.topology(at, entity, limit, offset))

    @app.get("/api/maintenance", responses={200: {"model": forms.Windows}}, tags=["maintenance"])
    def maintenance() -> Response:
        """Windows of maintenance: active, planned, and over since yesterday."""
        return _json({"maintenance": list(view.maintenance())})

    @app.get("/api/status", responses={200: {"model": forms.Status}}, tags=["status"])
    def status() -> Response:
        """Mode, sources and totals."""
        return _json(view.status())

    @app.get("/api/costs", responses={200: {"model": forms.Costs}}, tags=["status"])
    def costs(window: Annotated[CostWindow, Query(description="The last hour, the last day, or all.")] = "hour") -> Response:
        """What each deployment costs, and how much of its GPUs idles."""
        return _json(view.costs(window))

    @app.get("/api/capsules", responses={200: {"model": forms.Capsules}}, tags=["capsules"])
    def capsules() -> Response:
        """What incidents kept of the telemetry around them, the newest first."""
        return _json(view.capsules())

    @app.get("/api/capsules/{name}", responses=_CAPSULE, response_class=Response, tags=["capsules"])
    def capsule(name: str, request: Request) -> Response:
        """A capsule as a tar.gz. Needs the token where one is configured: log lines and policies are in it as they are."""
        refusal = unauthorised(request.headers, view.token, view.tokens)
        if refusal:
            return refusal
        try:
            file = view.capsule(name)
        except NotPossible as e:
            return JSONResponse({"error": str(e)}, 409)
        return _unknown("capsule of incident", name) if file is None else _download(file, f"{name}.tar.gz")

    @app.get("/api/learned", responses={200: {"model": forms.LearnedKinds}}, tags=["learned"])
    def learned() -> Response:
        """What was learned, kind by kind."""
        return _json(view.learned())

    @app.get("/api/learned/export", responses=_CAPSULE, response_class=Response, tags=["learned"])
    def learned_files(request: Request) -> Response:
        """All of it as a tar.gz. Needs the token where one is configured: names and log lines are in it as they are."""
        refusal = unauthorised(request.headers, view.token)
        if refusal:
            return refusal
        try:
            file = view.learned_files()
        except NotPossible as e:
            return JSONResponse({"error": str(e)}, 409)
        return _unknown("files of", "what was learned") if file is None else _download(file, "learned.tar.gz")

    @app.get("/api/learned/{kind}", responses={200: {"model": forms.LearnedRows}, **_KNOWN}, tags=["learned"])
    def learned_of(
        kind: str, name: Annotated[list[forms.Glob], Query(max_length=20, description="Globs; all when left out.")] = [],  # noqa: B006
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> Response:
        """Of one kind: what is known of what these name."""
        try:
            return _json(view.learned_of(kind, name, limit))
        except LookupError as e:
            return JSONResponse({"error": str(e.args[0])}, 404)

    @app.get("/api/models", responses={200: {"model": forms.Models}}, tags=["models"])
    def models() -> Response:
        """Which model of each detector serves, what is tried beside it, and what became of earlier ones."""
        return _json(view.models())


def _writes(app: FastAPI, view: View) -> None:
    @app.post("/api/actions/{name:path}/approve", responses=_WRITES, status_code=202, tags=["actions"])
    def approve(name: str, request: Request, body: forms.Approval | None = None) -> Response:
        """Let an action that asks be carried out, with other parameters if need be; it is checked again before it acts."""
        said = body or forms.Approval()
        return _write(lambda: view.approve(name, _by(request, view, said.by), said.changes), "action", name)

    @app.post("/api/actions/{name:path}/reject", responses=_WRITES, status_code=202, tags=["actions"])
    def reject(name: str, request: Request, body: forms.Answer | None = None) -> Response:
        """Refuse an action that asks."""
        return _write(lambda: view.reject(name, _by(request, view, (body or forms.Answer()).by)), "action", name)

    @app.post("/api/stop", responses=_WRITES, status_code=202, tags=["actions"])
    def stop(request: Request, body: forms.StopAll | None = None) -> Response:
        """Nothing is decided or done any more, from now on; what was done is undone where it did not help, unless frozen."""
        said = body or forms.StopAll()
        return _write(lambda: view.stop(_by(request, view, said.by), said.reason, said.freeze), "stop", "")

    @app.post("/api/start", responses=_WRITES, status_code=202, tags=["actions"])
    def start(request: Request, body: forms.Spoken | None = None) -> Response:
        """Take back a stop that people said."""
        said = body or forms.Spoken()
        return _write(lambda: view.start(_by(request, view, said.by), said.reason), "stop", "")

    @app.post("/api/maintenance", responses={202: {"model": forms.Started}, **_WRITES}, status_code=202, tags=["maintenance"])
    def start_maintenance(request: Request, body: forms.MaintenanceStart) -> Response:
        """Start or plan a window; it is in force with the next step."""
        try:
            by = _by(request, view)
            return _json(view.start_maintenance(body.entities, body.for_s, body.since, body.reason, by), 202)
        except NotPossible as e:
            return JSONResponse({"error": str(e)}, 409)

    @app.post("/api/maintenance/{name}/end", responses=_WRITES, status_code=202, tags=["maintenance"])
    def end_maintenance(name: str, request: Request) -> Response:
        """End a window that was started here, with the next step."""
        return _write(lambda: view.end_maintenance(name, _by(request, view)), "maintenance", name)

    @app.post("/api/incidents/{name:path}/feedback", responses=_WRITES, status_code=202, tags=["incidents"])
    def feedback(name: str, request: Request, body: forms.Feedback) -> Response:
        """Say whether an incident was worth telling."""
        return _write(lambda: view.feedback(name, body.verdict, _by(request, view, body.by)), "incident", name)

    @app.post("/api/learned/{kind}/reset", responses={202: {"model": forms.Forgotten}, **_WRITES}, status_code=202,
              tags=["learned"])
    def forget(kind: str, request: Request, body: forms.Forget | None = None) -> Response:
        """Forget it with the next step. There is no way back, but for models (`rollback`)."""
        said = body or forms.Forget()
        try:
            return _json({"accepted": True, "matches": view.forget(kind, said.names, _by(request, view, said.by))}, 202)
        except LookupError as e:
            return JSONResponse({"error": str(e.args[0])}, 404)
        except NotPossible as e:
            return JSONResponse({"error": str(e)}, 409)

    @app.post("/api/models/{name}/promote", responses=_WRITES, status_code=202, tags=["models"])
    def promote(name: str, request: Request) -> Response:
        """Let a detector's candidate serve from now on, whatever the comparison says."""
        return _write(lambda: view.promote(name, _by(request, view)), "detector", name)

    @app.post("/api/models/{name}/rollback", responses=_WRITES, status_code=202, tags=["models"])
    def roll_back(name: str, request: Request) -> Response:
        """Call back the model of a detector that served before, as it was then."""
        return _write(lambda: view.roll_back(name, _by(request, view)), "detector", name)


def _probes(app: FastAPI, view: View) -> None:
    @app.get("/livez", tags=["status"])
    def livez() -> PlainTextResponse:
        """The process answers."""
        return PlainTextResponse("ok\n")

    @app.get("/readyz", tags=["status"])
    def readyz(verbose: str | None = None) -> PlainTextResponse:
        """Telemetry is being watched. `?verbose` lists the checks."""
        ok, checks = view.ready()
        lines = [f"[{'+' if c.ok else '-'}]{c.name} {'ok' if c.ok else 'failed'}{': ' + c.text if c.text else ''}"
                 for c in checks if verbose is not None or not c.ok]
        last = ("readyz check passed" if verbose is not None else "ok") if ok else "readyz check failed"
        return PlainTextResponse("\n".join([*lines, last]) + "\n", 200 if ok else 503)

    @app.get("/metrics", tags=["status"])
    def metrics() -> PlainTextResponse:
        """The daemon's own metrics for Prometheus."""
        return PlainTextResponse(view.metrics_text(), media_type="text/plain; version=0.0.4")


def _events(app: FastAPI, view: View, poll_s: float) -> None:
    @app.get("/events", response_class=EventSourceResponse, tags=["status"])
    async def events() -> AsyncIterator[ServerSentEvent]:
        """Server-sent events: one with the revision now, and one whenever something that the page shows has changed."""
        if app.state.listeners >= MOST_LISTENERS:
            yield ServerSentEvent(event="busy", retry=60_000, raw_data="too many listeners")
            return
        app.state.listeners += 1
        try:
            last: int | None = None
            while not app.state.closing:
                if (now := view.revision()) != last:
                    last = now
                    yield ServerSentEvent(event="changed", raw_data=str(now))
                await asyncio.sleep(poll_s)
        finally:
            app.state.listeners -= 1


def _by(request: Request, view: View, said: str = "http") -> str:
    """Who it is: the name of the token that was shown. Without names it is who the caller says."""
    whose = getattr(request.state, "whose", None)
    return whose or (NAMELESS if view.tokens else said)


def _write(change: Callable[[], None], what: str, name: str) -> Response:
    try:
        change()
    except LookupError:
        return _unknown(what, name)
    except NotPossible as e:
        return JSONResponse({"error": str(e)}, 409)
    return JSONResponse({"accepted": True}, 202)


def _download(file: IO[bytes], name: str) -> Response:
    def blocks() -> Iterator[bytes]:
        with file:
            yield from iter(lambda: file.read(BLOCK), b"")
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(blocks(), media_type="application/gzip", headers=headers)


def _json(value: Any, status: int = 200) -> Response:
    """Numbers that are none become null, which JSON has no other word for."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _unknown(what: str, name: str) -> Response:
    return JSONResponse({"error": f"no {what} {name[:200]!r}"}, 404)
