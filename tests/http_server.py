"""A local HTTP server in a thread, for tests whose programs send requests."""

import abc
import contextlib
import http.server
import threading
from collections.abc import Iterator


class Handler(http.server.BaseHTTPRequestHandler):
    """A handler that logs nothing; its subclasses define `answer`."""

    @abc.abstractmethod
    def answer(self) -> None:
        """Answer a request of any method."""

    def do_GET(self) -> None:
        """Answer a GET, a HEAD or a POST."""
        self.answer()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def body(self) -> bytes:
        """Return the body of the request."""
        return self.rfile.read(int(self.headers["content-length"]))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(handler: type[Handler]) -> Iterator[str]:
    """Serve on a free port of loopback while the block runs; yield the address, without a slash at its end."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
