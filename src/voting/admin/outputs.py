"""What the API answers: models of polls, sessions and the audit log. The OpenAPI document is made from them."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from voting.polls.poll import Access, Kind, Results
from voting.polls.state import State


class OptionOut(BaseModel):
    """An option and its numbers."""

    key: str
    label: str
    votes: int = Field(description="Voters who chose it; in a ranking, those who prefer it to all others.")
    points: int | None = Field(None, description="Of a ranking: Borda points.")


class RunoffOut(BaseModel):
    """One round of the instant run-off of a ranking."""

    votes: dict[str, int] = Field(description="Key of each option that is still in, and the ballots for it.")
    exhausted: int = Field(description="Ballots that name no option that is still in.")
    eliminated: str | None = Field(description="The key of the option that is out after this round.")


class Numbers(BaseModel):
    """The result of a round."""

    options: list[OptionOut]
    total: int = Field(description="The number of voters.")
    mean: float | None = Field(None, description="Of a rating with votes.")
    runoff: list[RunoffOut] | None = Field(None, description="Of a ranking.")
    winner: str | None = Field(None, description="Of a ranking: the key that the run-off leaves.")


class Urls(BaseModel):
    """The addresses of a poll."""

    vote_url: str
    result_url: str
    present_url: str
    embed_url: str
    record_url: str = Field(description="The record of the final result; 404 until there is one.")
    ballots_url: str = Field(description="Where voters find their ballots, if they are published, when it is final.")
    control_url: str


class PollSummary(Urls):
    """A poll in a list."""

    slug: str
    question: str
    kind: Kind
    state: State
    round: int
    results: Results
    access: Access
    publish: bool
    max_choices: int | None
    scale: int | None
    opens_at: datetime | None
    closes_at: datetime | None
    timer: int | None = Field(description="Seconds.")
    erase_days: int | None = Field(description="After a round is final; null if pseudonyms are not erased.")
    opened: datetime | None = Field(description="When this round was opened.")
    closed: datetime | None = Field(description="When this round was closed.")
    created: datetime
    changed: int = Field(description="Grows with each change; the number in `ETag`.")
    total: int = Field(description="The number of voters in this round.")


class RoundOut(BaseModel):
    """An earlier round."""

    round: int
    question: str
    kind: Kind
    opened: datetime | None
    closed: datetime | None
    total: int
    final: datetime | None = Field(description="When it became final: since then nothing can change it.")
    fingerprint: str | None = Field(description="Of the record of the final result.")
    publish: bool | None = Field(description="Whether its ballots are published.")


class PollOut(PollSummary, Numbers):
    """A poll with its numbers, which are always shown here."""

    final: datetime | None = Field(description="When this round became final: since then nothing can change it.")
    fingerprint: str | None = Field(description="Of the record of the final result.")
    waiting: int = Field(description="Votes of all polls that are accepted and not counted yet.")
    rounds: list[RoundOut] = Field(description="The earlier rounds, the last first.")
    sessions: list[str] = Field(description="The join codes of the sessions that it is in.")


class PollPage(BaseModel):
    """Polls, newest first."""

    polls: list[PollSummary]
    next: str | None = Field(description="The address of the next page; null on the last.")


class Export(Numbers):
    """The result of a round. `choices` is how many voters made exactly this choice, as the database has it."""

    poll: str
    round: int
    question: str
    kind: Kind
    state: State
    opened: datetime | None
    closed: datetime | None
    final: datetime | None
    fingerprint: str | None = Field(description="Of the record of the final result.")
    choices: dict[str, int]


class SessionOut(BaseModel):
    """A session."""

    code: str
    title: str
    polls: list[str]
    current: str | None
    position: int | None = Field(description="Of the current poll, from 1.")
    people: int = Field(description="People who have a page of the session open.")
    created: datetime
    changed: int
    keep_days: int | None = Field(description="After which it is deleted with its polls; null if it is not.")
    deletes_at: datetime | None = Field(description="Null while a poll is open, is to open, or is not final yet.")
    join_url: str
    result_url: str
    present_url: str
    control_url: str


class NewSessionOut(SessionOut):
    """A new session. `host_url` is a secret, and is shown only here."""

    host_url: str


class SessionPage(BaseModel):
    """Sessions, newest first."""

    sessions: list[SessionOut]
    next: str | None


class HostLink(BaseModel):
    """A new host link, which is a secret; the one before is not valid any more."""

    host_url: str


class CodesOut(BaseModel):
    """The voting codes that a poll or session uses. The codes belong to the poll or the session that is named here."""

    made: int = Field(description="They have the numbers 1 to this.")
    valid: int = Field(description="Those that were not revoked.")
    revoked: int
    replaced: int = Field(description="Valid codes that replace another one.")
    poll: str | None
    session: str | None


class NewCodesOut(CodesOut):
    """Codes that were made. They are secrets: each is a vote."""

    first: int = Field(description="The number of the first of them; the others follow.")
    codes: list[str] = Field(examples=[["0123-4567-89AB-CDEF"]])


class ReplacedOut(CodesOut):
    """Codes that replace others, with their numbers."""

    numbers: list[int]
    codes: list[str]


class AuditEntry(BaseModel):
    """One change."""

    id: int
    at: datetime
    actor: str = Field(description="admin, host (of the session), schedule, worker or operator (commands).")
    action: str
    poll: str | None
    session: str | None
    detail: dict[str, Any]
    hash: str = Field(description="SHA-256 of the hash of the entry before and of this one: see `/api/audit.jsonl`.")


class AuditPage(BaseModel):
    """Changes, newest first."""

    entries: list[AuditEntry]
    next: str | None
