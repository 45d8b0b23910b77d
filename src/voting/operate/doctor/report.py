"""The report of `voting doctor`: findings, each with its fix, and the checks that passed."""

import json
from dataclasses import asdict, dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """Something that is wrong (`problem`), was not checked (`unchecked`), or depends on the use (`advice`)."""

    kind: Literal["problem", "unchecked", "advice"]
    about: str
    what: str
    fix: str


@dataclass
class Report:
    """Checks that passed, findings, and advice, which is not a finding."""

    passed: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    advice: list[Finding] = field(default_factory=list)

    def add_problem(self, about: str, what: str, fix: str) -> None:
        self.findings.append(Finding("problem", about, what, fix))

    def add_unchecked(self, about: str, what: str, fix: str) -> None:
        """Report something that could not be checked; `fix` says how to allow it."""
        self.findings.append(Finding("unchecked", about, f"could not check: {what}", fix))

    def add_advice(self, about: str, what: str, fix: str) -> None:
        """Report something that depends on how the installation is used; the exit code stays."""
        self.advice.append(Finding("advice", about, what, fix))

    def add_passed(self, about: str, what: str) -> None:
        """Report that a check has passed, unless there is a finding about it."""
        if all(finding.about != about for finding in self.findings):
            self.passed.append(f"{about}: {what}")

    def as_json(self) -> str:
        findings, advice = map(asdict, self.findings), map(asdict, self.advice)
        return json.dumps({"well": self.passed, "findings": list(findings), "advice": list(advice)}, indent=2)

    def as_text(self) -> str:
        lines = [f"ok         {line}" for line in self.passed]
        for each in [*self.advice, *self.findings]:
            lines += [f"{each.kind:<9}  {each.about}: {each.what}", f"{'':<9}  fix: {each.fix}"]
        return "\n".join([*lines, "", f"{len(self.findings)} found." if self.findings else "Nothing found."])


def is_remote(host: str) -> bool:
    """Whether others may read or forge traffic to a host; names without a dot are containers, or this machine."""
    return "." in host and not host.startswith("127.")
