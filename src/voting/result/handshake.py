"""The opening handshake of a viewer (RFC 6455, section 4.2)."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from voting.result.feed import Feed
from voting.web.language import language
from voting.web.problems import PROBLEM_JSON, Problem

Load = Callable[[Request], asyncio.Future[None] | None]
Admit = Callable[[Request, object], tuple[Feed, str]]


def respond(protocol: ServerProtocol, request: Request, peer: object, admit: Admit) -> tuple[Feed, str] | None:
    """Pass the response to the protocol; return the result of `admit(request, peer)`, or None if it is a rejection."""
    admission = None
    response = protocol.accept(request)
    if protocol.handshake_exc is None:
        try:
            admission = admit(request, peer)
        except Problem as problem:
            response = _rejection(protocol, problem)
    protocol.send_response(response)
    if admission:
        protocol.parser = protocol.parse()  # the old parser keeps the request, of up to 16 KiB
        next(protocol.parser)
    return admission


def _rejection(protocol: ServerProtocol, problem: Problem) -> Response:
    document = problem.document(language("en"), "GET")
    response = protocol.reject(HTTPStatus(problem.status), document.decode())
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = PROBLEM_JSON
    if problem.retry_after:
        response.headers["Retry-After"] = str(problem.retry_after)
    return response
