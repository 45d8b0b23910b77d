"""What `voting doctor` has found: each thing with its fix."""

import json
from dataclasses import asdict, dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """Something that is wrong (`problem`), could not be looked at (`unchecked`), or depends on the use (`advice`)."""

    kind: Literal["problem", "unchecked", "advice"]
    about: str
    what: str
    fix: str


@dataclass
class Report:
    """What is well, what was found, and what the operator has to decide: advice is no finding."""

    well: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    advice: list[Finding] = field(default_factory=list)

    def problem(self, about: str, what: str, fix: str) -> None:
        """Something is wrong."""
        self.findings.append(Finding("problem", about, what, fix))

    def unchecked(self, about: str, what: str, fix: str) -> None:
        """Something could not be looked at; `fix` says how it can be."""
        self.findings.append(Finding("unchecked", about, f"could not check: {what}", fix))

    def advise(self, about: str, what: str, fix: str) -> None:
        """Something depends on how the installation is used; it does not change the exit code."""
        self.advice.append(Finding("advice", about, what, fix))

    def note(self, about: str, what: str, *, unless: int) -> None:
        """Say what is well, unless there are more findings now than that many."""
        if len(self.findings) <= unless:
            self.well.append(f"{about}: {what}")

    def as_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self), indent=2)

    def as_text(self) -> str:
        """Lines for a person."""
        lines = [f"well       {line}" for line in self.well]
        for each in [*self.advice, *self.findings]:
            lines += [f"{each.kind:<9}  {each.about}: {each.what}", f"{'':<9}  fix: {each.fix}"]
        return "\n".join([*lines, "", f"{len(self.findings)} found." if self.findings else "Nothing found."])


def is_far(host: str) -> bool:
    """Whether a host is in a network where somebody else may listen, or answer in its place: its name has a dot."""
    return "." in host and not host.startswith("127.")
