"""Voters that vote and change their votes while parts of the stack fail, and a check of what was counted."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tests.waiting import PLAIN, eventually
from voting.polls.vote import EntryId
from voting.vote.voter import Voters

PAUSE_SECONDS = 0.02  # between the votes of a voter, to leave CPU time to services that start
VOTES = "SELECT voter, choice, entry_ms, entry_seq FROM votes"


@dataclass
class Voter:
    """The last acknowledged vote of one voter, and whether a later one may be counted too."""

    cookie: str = ""
    choice: str = ""
    receipt: str = ""
    uncertain: bool = False


class LoadGenerator:
    """Voters that vote and change their votes until stopped; keeps the last acknowledged vote of each.

    Args:
        url: of the ballot.
        voters: how many.
        client: makes the HTTP client of a voter, where a plain one cannot reach the ballot.
    """

    def __init__(self, url: str, voters: int, client: Callable[[], httpx.Client] | None = None) -> None:
        self._client = client or (lambda: httpx.Client(base_url=url, timeout=5, verify=PLAIN))
        self._is_https = url.startswith("https:")
        self._stop = threading.Event()
        self.acknowledged = 0
        self.statuses: set[int] = set()
        self.refusals: set[str] = set()
        self.voters = [Voter() for _ in range(voters)]
        self._threads = [threading.Thread(target=self._vote, args=(voter,)) for voter in self.voters]

    def _vote(self, voter: Voter) -> None:
        headers = {"accept": "application/json"}
        choices = itertools.cycle("ab")
        name = "__Host-voter_id" if self._is_https else "voter_id"
        with self._client() as client:
            cookie = client.get("/").cookies[name]
            voter.cookie = f"{name}={cookie}"
            while not self._stop.wait(PAUSE_SECONDS):
                choice = next(choices)
                try:
                    answer = client.post("/", data={"vote": choice}, headers=headers)
                except httpx.TransportError:
                    voter.uncertain = True
                    continue
                self.statuses.add(answer.status_code)
                if answer.status_code == 200:
                    voter.choice, voter.receipt, voter.uncertain = choice, answer.json()["receipt"], False
                    self.acknowledged += 1
                else:
                    voter.uncertain |= answer.json()["counted"] != "no"
                    self.refusals.add(answer.text)

    def check(self, rows: dict[bytes, tuple[str, str]], secret_key: str) -> None:
        """Check that each voter has one row, its last acknowledged vote or a later unclear one, and nobody else has.

        Args:
            rows: voter -> choice and entry id.
            secret_key: of the vote service, which tells whose row is whose.
        """
        voters = Voters(secret_key, (), https=self._is_https)
        for voter in self.voters:
            known = voters.recognise(voter.cookie.encode())
            assert known
            choice, receipt = rows.pop(known.pseudonym(b"default"))
            if (choice, receipt) != (voter.choice, voter.receipt):
                assert voter.uncertain, f"has {choice} {receipt}, acknowledged was {voter.choice} {voter.receipt}"
                later = EntryId.parse(receipt.encode()) > EntryId.parse(voter.receipt.encode())
                assert later, f"has {choice} {receipt}, acknowledged was {voter.choice} {voter.receipt}"
        assert rows == {}

    @contextmanager
    def running(self) -> Iterator["LoadGenerator"]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def wait_for_votes(self, votes: int = 50) -> None:
        """Wait until so many more votes are acknowledged."""
        held = self.acknowledged
        eventually(lambda: self.acknowledged >= held + votes, within=30)
