"""A poll's ballot, prepared so that a plain form is not parsed."""

import time
from urllib.parse import parse_qsl

from voting.polls.poll import BadChoice, Poll
from voting.polls.state import State
from voting.polls.tracker import tracker, tracker_text
from voting.polls.vote import EntryId
from voting.vote.code_voters import NO_CODES
from voting.vote.opening import state_at
from voting.web.language import translatable
from voting.web.problems import Problem


class PreparedBallot:
    """The choice of each plain form that votes in a poll, and its JSON receipts.

    `digest` identifies what a vote means; the page sends it back in the form field `ballot`. `codes` has the codes with
    which alone one may vote; None where no code is needed.
    """

    def __init__(self, poll: Poll) -> None:
        self.poll = poll
        self.box = poll.box.encode()
        self.digest = poll.digest
        self.browsers_only = poll.access == "browser"
        self.codes = (poll.codes or NO_CODES) if poll.access == "code" else None
        self._has_times = poll.opens_at is not None or poll.closes_at is not None
        # Only one option is named: a choice of several is parsed.
        self.plain_forms = {
            f"{ballot}vote={option.key}".encode(): option.key.encode()
            for option in poll.offered
            for ballot in ("", f"ballot={self.digest}&")
        }
        self.ticket = poll.ticket if poll.results == "after_vote" else ""
        # In the address of the page that says "Your vote is in"; with the ticket, since that page leads to the result.
        self.voted_token = f"{self.digest}-{self.ticket}" if self.ticket else self.digest
        ticket = f', "ticket": "{self.ticket}"' if self.ticket else ""
        self._tracker_key = poll.tracker_key if poll.publish else ""
        tracker = ', "tracker": "%b"' if self._tracker_key else "%b"
        self._receipt = f'{{"poll": "{poll.slug}", "choice": "%b", "receipt": "%b"{tracker}{ticket}}}'.encode()

    def state_now(self) -> State:
        """Return the state of the poll by the clock of this process."""
        return state_at(self.poll, time.time()) if self._has_times else self.poll.state

    def tracker(self, receipt: bytes) -> bytes:
        """Return the tracker of a vote; b"" if the poll does not publish its ballots."""
        return tracker_text(tracker(self._tracker_key, EntryId.parse(receipt))).encode() if self._tracker_key else b""

    def receipt(self, choice: bytes, receipt: bytes, tracker: bytes) -> bytes:
        """Return the JSON for a program. Keys need no escape: see `Poll.from_parts`."""
        return self._receipt % (choice, receipt, tracker)

    def parse_choice(self, form: bytes) -> bytes:
        """Return the choice that a form makes, or raise a `Problem`."""
        return self._choice(_fields(form))

    def parse_code_form(self, form: bytes) -> tuple[bytes, bytes]:
        """Return the choice that a form makes and its voting code, empty if it has none; or raise a `Problem`."""
        before, _, rest = form.partition(b"&code=")
        code, separator, after = rest.partition(b"&")
        choice = self.plain_forms.get(before + separator + after)
        if choice is not None:
            return choice, code
        fields = _fields(form)
        codes = [value for name, value in fields if name == "code" and value]
        return self._choice(fields), codes[0].encode() if codes else b""

    def _choice(self, fields: list[tuple[str, str]]) -> bytes:
        if any(name == "ballot" and value != self.digest for name, value in fields):
            message = translatable("This poll has changed since you opened it. Open it again and vote.")
            raise Problem(409, "poll_changed", message)
        try:
            return self.poll.parse_choice([value for name, value in fields if name == "vote"]).encode()
        except BadChoice as bad:
            raise _bad_choice(self.poll, bad.reason) from None


def _fields(form: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(form.decode(), keep_blank_values=True)
    except UnicodeDecodeError:
        return []


def _bad_choice(poll: Poll, reason: str) -> Problem:
    """Return the 400 for a choice that the poll does not allow."""
    if poll.kind == "rating":
        message = translatable("Choose one number from {low} to {high}, and send it as the form field vote.")
    elif poll.kind == "single":
        message = translatable("Choose exactly one option: send the form field vote as one of {expected}.")
    elif reason == "none":
        message = translatable("Your vote names no option. Choose at least one: {expected}.")
    elif reason == "unknown":
        message = translatable("Your vote names an option that this poll does not have. Choose from {expected}.")
    elif reason == "twice":
        message = translatable("Your vote names an option twice. Name each one only once.")
    else:
        message = translatable("Your vote names too many options: at most {limit} can be chosen.")
    expected = ", ".join(f"{option.key} ({option.label})" for option in poll.offered)
    low, high = poll.offered[0].key, poll.offered[-1].key
    return Problem(400, "bad_choice", message, expected=expected, low=low, high=high, limit=poll.limit)
