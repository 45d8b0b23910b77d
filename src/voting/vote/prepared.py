"""A poll's ballot, prepared so that a request renders no template, and a plain form is not parsed."""

import json
from urllib.parse import parse_qsl

from voting.polls.poll import Poll
from voting.web.language import Language, translatable
from voting.web.problems import Problem
from voting.web.rendering import Pages

PLACEHOLDER = "0000000000000-receipt"  # stands for the receipt (an entry id) in prepared responses


class PreparedBallot:
    """The pages of a poll, its JSON receipts, and the choice of each plain form.

    `digest` identifies the poll's question and options; the page sends it back in the form field `ballot`.
    """

    def __init__(self, poll: Poll, pages: Pages) -> None:
        self.slug = poll.slug.encode()
        self.digest = poll.digest
        self._keys = {option.key: option.key.encode() for option in poll.offered}
        self.plain_forms = {
            f"{ballot}vote={key}".encode(): choice
            for key, choice in self._keys.items()
            for ballot in ("", f"ballot={self.digest}&")
        }
        self._receipts = {
            choice: json.dumps({"poll": poll.slug, "choice": key, "receipt": PLACEHOLDER}).encode()
            for key, choice in self._keys.items()
        }
        self._expected = ", ".join(f"{option.key} ({option.label})" for option in poll.offered)
        self._context = {"poll": poll, "action": poll.path or "/", "results_href": f"{poll.path}/results"}
        self._context["ballot"] = self.digest
        self._pages = pages
        self._rendered: dict[tuple[str, bytes | None], list[bytes]] = {}

    def page(self, reader: Language, choice: bytes | None = None, receipt: bytes = b"") -> bytes:
        """Return the ballot in the reader's language, with the accepted choice and its receipt, if any."""
        parts = self._rendered.get((reader.code, choice))
        if parts is None:
            key, placeholder = (choice.decode(), PLACEHOLDER) if choice else (None, None)
            page = self._pages.render("ballot.html", reader, choice=key, receipt=placeholder, **self._context)
            parts = self._rendered[reader.code, choice] = page.split(PLACEHOLDER.encode())
        return receipt.join(parts)

    def receipt(self, choice: bytes, receipt: bytes) -> bytes:
        return self._receipts[choice].replace(PLACEHOLDER.encode(), receipt)

    def parse_choice(self, form: bytes) -> bytes:
        """Return the key of the option that a form chooses, or raise a `Problem`."""
        try:
            fields = parse_qsl(form.decode(), keep_blank_values=True)
        except UnicodeDecodeError:
            fields = []
        if any(name == "ballot" and value != self.digest for name, value in fields):
            message = translatable("This poll has changed since you opened it. Open it again and vote.")
            raise Problem(409, "poll_changed", message)
        chosen = [value for name, value in fields if name == "vote"]
        if len(chosen) != 1 or chosen[0] not in self._keys:
            message = translatable("Choose exactly one option: send the form field vote as one of {expected}.")
            raise Problem(400, "bad_choice", message, expected=self._expected)
        return self._keys[chosen[0]]
