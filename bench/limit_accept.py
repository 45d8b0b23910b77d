"""The limit for accepting: the same server reads the body and answers the same bytes, with no cookie and no Redis.

python -m bench.limit_accept PORT PROCESSES FILE      FILE holds the page to answer
"""

import sys
from pathlib import Path

from starlette.types import Receive, Scope, Send

from voting.service.lifecycle import Stop
from voting.vote.prefork import ProcessManager
from voting.web.responses import OK_HEAD
from voting.web.server import listen, serve


def main(port: int, processes: int, page: bytes) -> None:
    """Serve until SIGTERM."""
    extra = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"%d" % len(page))]
    extra += [(b"set-cookie", b"voter_id=" + b"x" * 48 + b"; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax")]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            while (await receive()).get("more_body"):
                pass
            await send({"type": "http.response.start", "status": 200, "headers": OK_HEAD.fields + extra})
            await send({"type": "http.response.body", "body": page})

    sock = listen(f"127.0.0.1:{port}")

    async def run(stop: Stop) -> None:
        await serve(app, sock, stop)

    ProcessManager(run, lambda _: None).run(processes)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]).read_bytes())
