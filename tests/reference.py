"""Sections of the docs that are made from the code: the settings, and the picture of a poll's states.

`python -m tests.reference` writes them; with `--check` it exits with 1 if one is out of date.
"""

import ast
import inspect
import re
import socket
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from voting.polls.state import TRANSITIONS
from voting.settings import services, tracing, voters
from voting.settings.environment import SET_BY_UP
from voting.settings.sources import Settings

DOCS = Path(__file__).parents[1] / "docs"
INTRODUCTION = """
## Settings

A setting comes from the first of these that has it:

1. the environment variable `NAME`; an empty value counts as not set
2. the file named by `NAME_FILE`
3. the parameter `/voting/prod/NAME` in AWS Parameter Store, if `SSM_PREFIX=/voting/prod` is set
   ([how](operations.md#settings); it needs the extra `cloud`)
4. its default

A service that finds bad settings names all of them and exits with 2. `./voting up` sets those
marked * itself.
"""
SERVICES = (
    *(services.VoteSettings, services.WorkerSettings, services.ResultSettings, services.AdminSettings),
    services.MigrateSettings,
)
GROUPS: dict[str, tuple[type[Settings], ...]] = {
    "The vote service": (voters.VoterSettings, services.VoteSettings),
    "The result service": (services.ResultSettings,),
    "The admin service": (services.AdminSettings,),
    "Every web service": (services.WebSettings,),
    "The worker": (services.WorkerSettings,),
    "The migration and the default poll": (services.MigrateSettings,),
    "Redis": (services.RedisSettings,),
    "PostgreSQL": (services.DatabaseSettings,),
    "Tracing": (tracing.TraceSettings,),
    "Probes and logs": (services.ProbeSettings, services.ServiceSettings),
}


def descriptions() -> dict[tuple[str, str], str]:
    """Return the string below each setting, by class and setting; Python does not keep it at run time."""
    found = {}
    for module in (services, tracing, voters):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            body = node.body if isinstance(node, ast.ClassDef) else []
            for field, text in pairwise(body):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(value))):
                        assert isinstance(node, ast.ClassDef)
                        found[node.name, name] = " ".join(value.split())
    return found


def allowed(schema: dict[str, Any]) -> str:
    """Return the values of a setting: examples, words or a range."""
    match schema:
        case {"examples": examples}:
            text = "such as " + " or ".join(f"`{example}`" for example in examples)
        case {"anyOf": alternatives}:
            text = " or ".join(allowed(each) for each in alternatives if each["type"] != "null")
        case {"enum": words}:
            text = ", ".join(f"`{word}`" for word in words)
        case {"const": word}:
            text = f"`{word}`"
        case {"type": "boolean"}:
            text = "`true`, `false`"
        case {"minimum": low, "maximum": high}:
            text = f"{low:,} to {high:,}"
        case {"exclusiveMinimum": low, "maximum": high}:
            text = f"above {low:,}, at most {high:,}"
        case {"minLength": length}:
            text = f"{length} characters or more"
        case _:
            text = "text"
    return text


def default(settings: type[Settings], name: str) -> str:
    """Return the default of a setting; nothing where its description says what happens without it."""
    field = settings.model_fields[name]
    if field.default_factory is socket.gethostname:
        return "host name"
    if field.is_required():
        return "(required)"
    return "" if field.default in (None, "", ()) else f"`{str(field.default).lower()}`"


def rows() -> dict[str, list[tuple[str, str]]]:
    """Return the settings of each group and their lines in its table."""
    found: dict[str, list[tuple[str, str]]] = {}
    texts = descriptions()
    for title, group in GROUPS.items():
        found[title] = []
        for settings in group:
            schemas = settings.model_json_schema()["properties"]
            for name in settings.__annotations__:
                # A reference to a page in docs/ becomes a link.
                text = re.sub(r"docs/((\w+\.md)(#[\w-]+)?)", r"[\2](\1)", texts[settings.__name__, name])
                setting = f"`{name.upper()}`" + (" *" if name.upper() in SET_BY_UP else "")
                line = f"| {setting} | {allowed(schemas[name])} | {default(settings, name)} | {text} |\n"
                found[title].append((name.upper(), line))
    return found


def section() -> str:
    """Return the text between the markers."""
    text = INTRODUCTION
    for title, lines in rows().items():
        readers = [each for each in SERVICES if issubclass(each, GROUPS[title])]
        names = [f"`{each.__name__.removesuffix('Settings').lower()}`" for each in readers]
        text += f"\n### {title}\n\n"
        if len(names) > 1:
            text += f"Read by {', '.join(names[:-1])} and {names[-1]}.\n\n"
        text += "| setting | values | default | meaning |\n|---|---|---|---|\n" + "".join(line for _, line in lines)
    return text + "\n"


def states() -> str:
    """Return the picture of a poll's states, in Mermaid's language."""
    arrows = "".join(f"    {before} --> {after} : {action}\n" for (before, after), action in TRANSITIONS.items())
    return f"\n```mermaid\nstateDiagram-v2\n    direction LR\n    [*] --> draft : create\n{arrows}```\n\n"


SECTIONS = (("reference.md", "settings", section), ("architecture.md", "states", states))


def main(arguments: list[str]) -> int:
    """Write the sections, or compare them; return the exit code."""
    outdated = 0
    for name, title, make in SECTIONS:
        page = DOCS / name
        text = page.read_text(encoding="utf-8")
        begin, end = f"<!-- {title}: made by python -m tests.reference -->\n", f"<!-- end of {title} -->\n"
        before, _, rest = text.partition(begin)
        made = f"{before}{begin}{make()}{end}{rest.partition(end)[2]}"
        if arguments == ["--check"]:
            outdated |= made != text
        else:
            page.write_text(made, encoding="utf-8")
    return int(outdated)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
