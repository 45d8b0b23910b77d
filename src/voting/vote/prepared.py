"""TODO voting.vote.prepared."""

import json
from urllib.parse import parse_qsl

from voting.polls import Poll
from voting.web.language import Language, translatable
from voting.web.problems import Problem
from voting.web.rendering import Pages

RECEIPT = "0000000000000-receipt"  # stands for the entry id in prepared pages


class PreparedBallot:
    """A poll made ready to be voted on: its pages, and the choice that each plain form body means."""

    def __init__(self, poll: Poll, pages: Pages) -> None:
        self.slug = poll.slug.encode()
        self.ballot = poll.digest  # the hidden field of the page's form says which ballot was shown
        self.keys = {option.key: option.key.encode() for option in poll.offered}
        self.choices = {
            f"{ballot}vote={key}".encode(): choice
            for key, choice in self.keys.items()
            for ballot in ("", f"ballot={self.ballot}&")
        }
        self._documents = {
            key: json.dumps({"poll": poll.slug, "choice": choice, "receipt": RECEIPT}).encode().split(RECEIPT.encode())
            for choice, key in self.keys.items()
        }
        self.expected = ", ".join(f"{option.key} ({option.label})" for option in poll.offered)
        self._context = {"poll": poll, "action": poll.path or "/", "results_href": f"{poll.path}/results"}
        self._context["ballot"] = self.ballot
        self._pages = pages
        self._ready: dict[tuple[str, bytes | None], list[bytes]] = {}

    def page(self, reader: Language, choice: bytes | None = None, receipt: bytes = b"") -> bytes:
        """The ballot in the reader's language, with a choice and its receipt if there is one; all else is made once."""
        pieces = self._ready.get((reader.code, choice))
        if pieces is None:
            chosen, place = (choice.decode(), RECEIPT) if choice else (None, None)
            page = self._pages.render("ballot.html", reader, choice=chosen, receipt=place, **self._context)
            pieces = self._ready[reader.code, choice] = page.split(RECEIPT.encode())
        return receipt.join(pieces)

    def document(self, choice: bytes, receipt: bytes) -> bytes:
        """Return the answer to a program whose vote was accepted."""
        return receipt.join(self._documents[choice])

    def choice(self, body: bytes) -> bytes:
        """Return the option that a form body chooses.

        Raises:
            Problem: it chooses none, several, or one that the poll does not have; or the poll has changed since its
                page was made.
        """
        try:
            fields = parse_qsl(body.decode(), keep_blank_values=True)
        except UnicodeDecodeError:
            fields = []
        if any(name == "ballot" and value != self.ballot for name, value in fields):
            raise Problem(
                409, "poll_changed", translatable("This poll has changed since you opened it. Open it again and vote.")
            )
        given = [value for name, value in fields if name == "vote"]
        if len(given) != 1 or given[0] not in self.keys:
            message = translatable("Choose exactly one option: send the form field vote as one of {expected}.")
            raise Problem(400, "bad_choice", message, expected=self.expected)
        return self.keys[given[0]]
