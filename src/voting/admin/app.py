"""The admin service: where polls and sessions are made and run, on port 8082. It connects to PostgreSQL only.

Each change is one transaction, with its row in the audit log. While the database is away, changes are refused with 503
and nothing is half done; polls stay as they are, and their schedules are kept by the workers.
"""

import asyncio
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from voting.admin import api_codes, api_polls, api_sessions, code_cards, pages, result_page
from voting.admin.access import Access
from voting.admin.code_pages import CodePages
from voting.admin.control_pages import ControlPages
from voting.admin.database import Database
from voting.admin.headers import with_headers
from voting.admin.metrics import AdminMetrics
from voting.admin.openapi import OpenApi
from voting.admin.pages import PageMaker
from voting.admin.poll_pages import PollPages
from voting.admin.problems import AdminPages, Invalid, field_errors
from voting.admin.services import Services
from voting.admin.session_pages import SessionPages
from voting.admin.sign_in import host_route
from voting.admin.sweeper import Sweeper
from voting.admin.webhooks import WebhookSender
from voting.service import health, lifecycle, logs, metrics
from voting.service.lifecycle import Stop
from voting.settings.services import AdminSettings
from voting.web.language import translatable
from voting.web.problems import Problem
from voting.web.protocol import HttpProtocol
from voting.web.rate_limit import with_rate_limit
from voting.web.server import connection_limit, listen, serve

log = logs.get()


class LargeBodies(HttpProtocol):
    """Accepts the form of the largest poll, in which a character of a label can take nine bytes."""

    __slots__ = ()
    max_body = 64 * 1024


def create_app(services: Services, stop: Stop) -> ASGIApp:
    """Return the public application."""
    app = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the redirect would go to the host in Host
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.services = services
    app.include_router(api_polls.router)
    app.include_router(api_sessions.router)
    app.include_router(api_codes.router)
    openapi = OpenApi(app, services.settings, services.pages)
    app.router.routes.extend([*page_routes(services), *openapi.routes(), services.pages.route()])
    app.router.routes.extend(health.probes(lambda: services.database.ready and not stop.is_set()))

    async def refuse(request: Request, error: Exception) -> Response:
        problem = _as_problem(error)
        refusal = services.pages.refusal(problem, request.scope)
        if isinstance(error, HTTPException):
            refusal.headers.update(error.headers or {})
        if problem.status == 405 and (allowed := openapi.methods(request.url.path)):
            refusal.headers["allow"] = allowed
        return refusal

    for kind in (Problem, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, refuse)
    return with_headers(app)


def page_routes(services: Services) -> list[BaseRoute]:
    """Return the routes of the pages."""
    maker = PageMaker(services)
    of_polls, of_sessions = PollPages(maker).routes(), SessionPages(maker).routes()
    return [
        *pages.routes(maker),
        *of_polls,
        *of_sessions,
        *CodePages(maker).routes(),
        *code_cards.routes(maker),
        *ControlPages(maker).routes(),
        *result_page.routes(maker),
        host_route(services),
    ]


def _as_problem(error: Exception) -> Problem:
    if isinstance(error, RequestValidationError):
        return Invalid(field_errors(error.errors()))
    if isinstance(error, HTTPException):
        reason = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        message = translatable("The body cannot be read.") if error.status_code == 400 else ""
        return Problem(error.status_code, reason, message)
    assert isinstance(error, Problem)  # noqa: S101 - the only other exception that is registered
    return error


def run(settings: AdminSettings) -> None:
    """Run the service until SIGTERM or SIGINT."""
    lifecycle.run(lambda stop: main(settings, stop))


def make_services(settings: AdminSettings, admin_metrics: AdminMetrics) -> Services:
    """Return what the endpoints use; run `database.run` while they serve."""
    database = Database(settings, admin_metrics)
    access = Access(settings, database, admin_metrics)
    return Services(settings, admin_metrics, database, access, AdminPages())


async def main(settings: AdminSettings, stop: Stop) -> None:
    """Serve until `stop` is set."""
    registry = metrics.registry("admin")
    admin_metrics = AdminMetrics(registry)
    services = make_services(settings, admin_metrics)
    app = create_app(services, stop)
    private_app = health.private_app(lambda: services.database.ready and not stop.is_set(), registry)
    log.info("admin.starting", host=settings.host, port=settings.admin_port)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(services.database.run(stop))
        tasks.create_task(Sweeper(services.database).run(stop))
        tasks.create_task(WebhookSender(settings, services.database, admin_metrics).run(stop))
        tasks.create_task(serve(private_app, listen(settings.metrics_listen), stop))
        public = listen(f"{settings.host}:{settings.admin_port}")
        limited = with_headers(with_rate_limit(app, settings, services.pages, admin_metrics.limited.inc))
        limit = connection_limit(settings.max_connections, shared=bool(settings.trusted_proxies))
        tasks.create_task(
            serve(limited, public, stop, limit=limit, on_rejection=admin_metrics.reject, protocol=LargeBodies)
        )
    await services.database.close()
    log.info("admin.stopped")
