"""A host who makes, opens and closes polls through the API of the admin service."""

import time
from typing import Any, NamedTuple, Self

import httpx

from tests.faults.ballots import Ballot
from tests.faults.run import RowFailed
from tests.faults.system import SystemUnderTest
from tests.waiting import PLAIN, eventually

PATIENCE = 5.0  # seconds; longer than any answer may take


class Answer(NamedTuple):
    """What the API answered; `status` is 0 if no answer came."""

    status: int
    seconds: float
    problem: dict[str, Any]  # of a refusal
    retry_after: str

    @property
    def reason(self) -> str:
        return str(self.problem.get("reason", ""))

    def __str__(self) -> str:
        return f"{self.status} {self.reason or 'without a reason'}"


class Host:
    """One connection to admin, with the admin key."""

    def __init__(self, system: SystemUnderTest) -> None:
        headers = {"authorization": f"Bearer {system.admin_key}"}
        self._client = httpx.Client(base_url=system.admin_url, headers=headers, timeout=PATIENCE, verify=PLAIN)
        self.answers: list[Answer] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, method: str, path: str, fields: dict[str, Any] | None = None) -> Answer:
        """Send a request once."""
        began = time.monotonic()
        try:
            response = self._client.request(method, f"/api/polls{path}", json=fields)
        except httpx.TransportError:
            answer = Answer(0, time.monotonic() - began, {}, "")
        else:
            problem = response.json() if response.status_code >= 400 else {}
            retry_after = response.headers.get("retry-after", "")
            answer = Answer(response.status_code, time.monotonic() - began, problem, retry_after)
        self.answers.append(answer)
        return answer

    def set_state(self, slug: str, state: str) -> Answer:
        """Ask once for a state."""
        return self.ask("PATCH", f"/{slug}", {"state": state})

    def _insist(self, method: str, path: str, fields: dict[str, Any] | None = None, done: str = "") -> None:
        """Send a request again until it is done; a refusal with the reason `done` says that it was done before."""

        def is_done() -> bool:
            answer = self.ask(method, path, fields)
            if answer.status not in {0, 200, 201, 204, 503} and answer.reason != done:
                message = f"bound: {method} {path} {fields or ''} was answered with {answer}"
                raise RowFailed(message, (message,))
            return answer.status not in {0, 503}

        eventually(is_done, within=90, every=0.05)  # admin may be down for most of it

    def create(self, ballot: Ballot) -> None:
        """Make a draft."""
        self._insist("POST", "", ballot.fields, "slug_taken")

    def open(self, ballot: Ballot) -> None:
        """Open a draft."""
        self._insist("PATCH", f"/{ballot.slug}", {"state": "open"})

    def close(self, ballot: Ballot) -> None:
        """Close an open poll."""
        self._insist("PATCH", f"/{ballot.slug}", {"state": "closed"})

    def reset(self, ballot: Ballot) -> None:
        """Make an open or closed poll the draft of its next round."""
        self._insist("POST", f"/{ballot.slug}/reset")

    def delete(self, ballot: Ballot) -> None:
        """Delete a poll."""
        self._insist("DELETE", f"/{ballot.slug}", None, "unknown_poll")
