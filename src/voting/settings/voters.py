"""The settings that say who may vote: the voters' cookies, new voters and voting codes."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from voting.settings import keys
from voting.settings.fields import AcceptedKeys
from voting.settings.sources import Settings

LIMITED_VOTER_DAYS = 7  # the default of VOTER_DAYS where NEW_VOTERS_PER_HOUR is set


class VoterSettings(Settings):
    """Settings of the vote service about voters."""

    secret_key: Annotated[str, Field(min_length=keys.MIN_LENGTH)]
    """The key that signs voters' cookies."""
    secret_key_old: Annotated[AcceptedKeys, Field(examples=["KEY", "KEY until 2027-01-31"])] = ()
    """Further keys whose cookies are accepted: previous keys, and the next key before it becomes `SECRET_KEY`. Separate
    several by commas or line ends; `until` is the last day, in UTC (docs/operations.md#the-key-of-cookies)."""
    ballot_policy: Literal["open", "browser"] = "open"
    """With `open`, a vote without a cookie belongs to a new voter; with `browser`, only browsers that loaded the page
    may vote."""
    new_voters_per_hour: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """New voters from one address in an hour, counted when a page sets a cookie or a vote without one is accepted; more
    get 429 with the wait, and known voters can still change their votes. 0 is off."""
    voter_days: Annotated[int, Field(ge=1, le=365)] | None = None
    """Days for which a browser stays the same voter, at least as long as a poll is open: 365 by default, 7 with
    `NEW_VOTERS_PER_HOUR` (docs/decisions.md#cookies-expire-which-limits-how-many-an-address-can-collect)."""

    wrong_codes_per_hour: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Wrong voting codes from one address in an hour. Beyond it, votes with a code get 429 with the wait, except from
    browsers that have already voted with one (docs/polls.md#voting-codes)."""

    @model_validator(mode="after")
    def _distinct_keys(self) -> Self:
        for number, each in enumerate(self.secret_key_old, 1):
            if each.key == self.secret_key:
                raise ValueError(f"SECRET_KEY_OLD: key {number} is SECRET_KEY itself; list only the other keys")
        return self

    @property
    def cookie_days(self) -> int:
        return self.voter_days or (LIMITED_VOTER_DAYS if self.new_voters_per_hour else 365)
