"""What callers send: the fields of a poll and of a session, and the rules for each field alone.

Pages and the API use the same models: `problems.parse` makes one from a form. Rules that concern several fields are in
`checks`.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from voting.admin.problems import Fault
from voting.polls.codes import MAX_CHANGES, MAX_SERIAL
from voting.polls.labels import MAX_LABEL, clean_label, fold_label
from voting.polls.poll import MAX_OPTIONS, Access, Kind, Results
from voting.polls.session import parse_code
from voting.polls.slug import SLUG
from voting.polls.state import State
from voting.web.language import translatable

MAX_POLLS = 100  # of a session
RESERVED = {"new"}  # /polls/new is a page
TIMER = (5, 86_400)  # seconds
MAX_LABELS = 100  # in one request
MAX_CODES = 200  # named by themselves in one request, which fit into its largest size with all numbers
MAX_DAYS = 3650


def _label(text: str) -> str:
    try:
        return clean_label(text)
    except ValueError:
        if not fold_label(text.strip()):
            raise Fault(translatable("This field is empty.")) from None
        if len(text) > MAX_LABEL:
            message = translatable("This has {number} characters. At most {limit} are possible.")
            raise Fault(message, number=len(text), limit=MAX_LABEL) from None
        raise Fault(translatable("This has a line break, or another character that cannot be shown.")) from None


def _slug(text: str) -> str:
    if text in RESERVED:
        raise Fault(translatable("This name is used by a page. Choose another."))
    if not SLUG.fullmatch(text):
        message = translatable("Use 1 to 63 of the letters a to z, digits and hyphens, and no hyphen at the beginning.")
        raise Fault(message)
    return text


def _code(text: str) -> str:
    code = parse_code(text)
    if code is None:
        raise Fault(translatable("This is not a join code."))
    return code


def _iso_time(value: Any) -> Any:
    """Accept a time in text form only: numbers could be seconds or milliseconds."""
    if isinstance(value, str) and len(value) < 11:
        raise Fault(translatable("Give a date and a time with a time zone, such as 2027-01-31T18:00Z."))
    if value is not None and not isinstance(value, str | datetime):
        raise Fault(translatable("Give a date and a time with a time zone, such as 2027-01-31T18:00Z."))
    return value


_TEXT = {"minLength": 1, "maxLength": MAX_LABEL}
Label = Annotated[str, AfterValidator(_label), Field(json_schema_extra=_TEXT)]
Slug = Annotated[str, AfterValidator(_slug), Field(json_schema_extra={"pattern": f"^{SLUG.pattern}$"})]
Time = Annotated[AwareDatetime, BeforeValidator(_iso_time)]
Timer = Annotated[int, Field(ge=TIMER[0], le=TIMER[1], strict=True)]
Labels = Annotated[list[Label], Field(max_length=MAX_LABELS)]  # `checks` says how many a poll may have
MaxChoices = Annotated[int, Field(ge=1, le=MAX_OPTIONS, strict=True)]
Scale = Literal[5, 10]
EraseDays = Annotated[int, Field(ge=0, le=MAX_DAYS, strict=True)]
KeepDays = Annotated[int, Field(ge=1, le=MAX_DAYS, strict=True)]

_QUESTION = "1 to 200 characters."
_OPTIONS = (
    "2 to 20 labels, which differ in more than case. A rating has none: its options are the numbers of its scale."
)
_ACCESS = (
    "`open`: a program without a cookie may vote too; `browser`: only browsers that loaded the ballot; `code`: only "
    "with a voting code, which votes once from whatever browser."
)
_KIND = "`single`: one option; `multiple`: up to `max_choices`; `rating`: a number; `ranking`: options in order."
_MAX_CHOICES = "How many options one vote may name, for the kind `multiple`; null is all."
_SCALE = "Of a rating: 5 is 1 to 5, 10 is 0 to 10. The default is 5."
_RESULTS = "Who sees the numbers: everybody (`live`), those who have voted, everybody once it is closed, nobody."
_PUBLISH = (
    "Whether the final result has a list of all ballots, in which voters can find their own. "
    "It cannot be changed after the first vote."
)
_OPENS = "A draft is opened then: ISO 8601 with a time zone, in the future."
_CLOSES = "An open poll is closed then: ISO 8601 with a time zone, in the future, and after `opens_at`."
_ERASE_DAYS = (
    "Days after a round is final until the pseudonyms in its votes are erased: 0 is at once, null is never. It can be "
    "changed until the round is final."
)
_KEEP_DAYS = (
    "Days from the last closing of its polls, or from when this was set, until the session is deleted with its polls "
    "and all their votes; null is never. The default poll and polls of other sessions stay."
)
_TIMER = "Seconds from opening to closing, where `closes_at` is not set."


class Input(BaseModel):
    """Fields that are not known are refused."""

    model_config = ConfigDict(extra="forbid")


class NewPoll(Input):
    """A poll to be made."""

    question: Annotated[Label, Field(description=_QUESTION, examples=["Where do we meet?"])]
    options: Annotated[Labels, Field(description=_OPTIONS, examples=[["Here", "There"]])] = []
    kind: Annotated[Kind, Field(description=_KIND)] = "single"
    max_choices: Annotated[MaxChoices | None, Field(description=_MAX_CHOICES)] = None
    scale: Annotated[Scale | None, Field(description=_SCALE)] = None
    results: Annotated[Results, Field(description=_RESULTS)] = "live"
    access: Annotated[Access, Field(description=_ACCESS)] = "open"
    publish: Annotated[StrictBool, Field(description=_PUBLISH)] = False
    opens_at: Annotated[Time | None, Field(description=_OPENS)] = None
    closes_at: Annotated[Time | None, Field(description=_CLOSES)] = None
    timer: Annotated[Timer | None, Field(description=_TIMER)] = None
    erase_days: Annotated[EraseDays | None, Field(description=_ERASE_DAYS)] = None
    slug: Annotated[
        Slug | None, Field(description="The name in its addresses; made from the question if left out.")
    ] = None


class PollChange(Input):
    """What is to change in a poll; fields that are left out stay. Null clears times, `timer` and `erase_days`."""

    question: Annotated[Label | None, Field(description=_QUESTION)] = None
    options: Annotated[Labels | None, Field(description=_OPTIONS)] = None
    kind: Annotated[Kind | None, Field(description=_KIND)] = None
    max_choices: Annotated[MaxChoices | None, Field(description=_MAX_CHOICES)] = None
    scale: Annotated[Scale | None, Field(description=_SCALE)] = None
    results: Annotated[Results | None, Field(description=_RESULTS)] = None
    access: Annotated[Access | None, Field(description=_ACCESS)] = None
    publish: Annotated[StrictBool | None, Field(description=_PUBLISH)] = None
    opens_at: Annotated[Time | None, Field(description=_OPENS)] = None
    closes_at: Annotated[Time | None, Field(description=_CLOSES)] = None
    closes_in: Annotated[
        int | None, Field(ge=1, le=TIMER[1], description="Sets `closes_at` to this many seconds from now.")
    ] = None
    timer: Annotated[Timer | None, Field(description=_TIMER)] = None
    erase_days: Annotated[EraseDays | None, Field(description=_ERASE_DAYS)] = None
    state: Annotated[
        State | None,
        Field(description="`open` opens a draft, `closed` closes it, `draft` is the same as a reset."),
    ] = None


class NewSession(Input):
    """A session to be made."""

    title: Annotated[Label, Field(examples=["All hands"])]
    polls: Annotated[list[str], Field(max_length=MAX_POLLS, description="Slugs, in order.")] = []
    keep_days: Annotated[KeepDays | None, Field(description=_KEEP_DAYS)] = None


class SessionChange(Input):
    """What is to change in a session; fields that are left out stay."""

    title: Label | None = None
    polls: Annotated[list[str] | None, Field(max_length=MAX_POLLS, description="Slugs, in order.")] = None
    current: Annotated[str | None, Field(description="The slug that the audience sees; null for none.")] = None
    keep_days: Annotated[KeepDays | None, Field(description=_KEEP_DAYS)] = None


Code = Annotated[str, AfterValidator(_code)]


class NewCodes(Input):
    """How many voting codes to make."""

    count: Annotated[int, Field(ge=1, le=MAX_SERIAL, strict=True)]


class SomeCodes(Input):
    """Voting codes, named by their number or by themselves."""

    numbers: Annotated[
        list[Annotated[int, Field(ge=1, le=MAX_SERIAL, strict=True)]],
        Field(max_length=MAX_CHANGES, description="Of the codes, from 1."),
    ] = []
    codes: Annotated[
        list[Annotated[str, Field(max_length=100)]], Field(max_length=MAX_CODES, description="The codes themselves.")
    ] = []
