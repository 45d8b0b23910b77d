"""The documentation: commands in the manual of deploy/ec2 exist, pages name files and links that exist, lines fit."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.deploy.cloudformation import TEMPLATE, load
from tests.deploy.conftest import Aws
from tests.e2e.compose import ROOT

MANUAL = ROOT / "deploy" / "ec2" / "README.md"
PACKAGE = ROOT / "src" / "voting"
PAGES = sorted(
    page for folder in (".", "docs", "bench", "deploy/ec2", "secrets") for page in (ROOT / folder).glob("*.md")
)
LONGEST = 100


def commands(file: Path = MANUAL) -> list[list[str]]:
    """The commands in a page's sh blocks, as words."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", file.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            found.append(words[1:] if words[:1] == ["sudo"] else words)
    return [words for words in found if words]


AWS = [words for file in (MANUAL, ROOT / "README.md") for words in commands(file) if words[0] == "aws"]
COMPOSE = [words for words in commands() if words[:2] == ["docker", "compose"]]
OTHERS = [words for words in commands() if words not in AWS + COMPOSE]


@pytest.mark.parametrize("words", AWS, ids=" ".join)
def test_the_aws_cli_knows_the_command_and_takes_its_arguments(aws: Aws, words: list[str]) -> None:
    """A skeleton of the output is given only for input that fits the service's model; nothing is sent."""
    if words[2] == "deploy":  # not an operation of the service: tests/deploy/test_template.py runs it
        given = dict(each.split("=", 1) for each in words[words.index("--parameter-overrides") + 1 :])
        parameters = load()["Parameters"]
        for name, value in given.items():
            assert re.search(parameters[name].get("AllowedPattern", ""), value), name
            assert value in parameters[name].get("AllowedValues", [value]), name
        assert words[words.index("--template-file") + 1] == str(TEMPLATE.relative_to(ROOT))
        return
    if words[2] == "describe-stacks":  # its skeleton does not fit the model itself
        assert "Stack with id voting does not exist" in aws.run(*words).stderr
        return
    done = aws.run(*words, "--generate-cli-skeleton", "output")
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("words", COMPOSE, ids=" ".join)
def test_compose_knows_the_command_and_its_flags(words: list[str]) -> None:
    done = subprocess.run(["docker", "compose", words[2], "--help"], capture_output=True, text=True, check=True)
    for flag in (word for word in words[3:] if word.startswith("-")):
        assert re.search(rf"(^|[ ,]){flag}[ ,]", done.stdout, re.MULTILINE), flag


def test_everything_else_is_a_script_that_is_here_or_a_program_of_the_system() -> None:
    programs = {"git", "cd", "resize2fs", "cosign"}
    for words in OTHERS:
        if words[0] not in programs:
            script = ROOT / words[0]
            assert script.is_file(), words
            assert script.stat().st_mode & 0o100, words
    engine = next(words for words in OTHERS if words[0].endswith("boot.sh"))
    assert re.search(rf"^{engine[1]}\(\) {{", (ROOT / engine[0]).read_text(), re.MULTILINE)


def test_every_parameter_is_explained_with_its_default() -> None:
    rows = [line.split("|")[1:4] for line in MANUAL.read_text().splitlines() if line.startswith("| `")]
    explained = {}
    for names, defaults, _ in rows:
        for name, default in zip(names.split(","), defaults.split(","), strict=True):
            explained[name.strip(" `")] = default.strip().strip("\N{EN DASH}")
    assert explained == {name: str(each.get("Default", "")) for name, each in load()["Parameters"].items()}


def test_the_template_can_be_given_without_a_bucket() -> None:
    assert len(TEMPLATE.read_bytes()) <= 51_200


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def page_ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_a_line_has_at_most_100_characters(page: Path) -> None:
    """Commands too. Of a link only the text counts; tables, images, URLs and ARNs are as wide as they need to be."""
    lines = [re.sub(r"\]\([^)]*\)|<?https?://\S+|arn:\S+", "", line) for line in page.read_text().splitlines()]
    assert not [line for line in lines if len(line) > LONGEST and not line.lstrip().startswith(("|", "!["))]


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_links_between_pages_lead_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(file), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, target


def test_the_architecture_names_files_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`([\w-][\w./-]*(?:\.(?:py|sql|yaml|sh)|/))`", page))
    assert len(named) > 50
    assert not {name for name in named if not any((folder / name).exists() for folder in (PACKAGE, ROOT))}


def test_the_reference_lists_each_metric_and_each_log_event() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text()
    source = "\n".join(file.read_text() for file in PACKAGE.rglob("*.py"))
    metrics = set(re.findall(r"\"(voting_[a-z_]+)\"", source))
    events = set(re.findall(r"\.(?:debug|info|warning|error)\(\s*\"(\w+\.\w+)\"", source))
    assert len(metrics) > 25
    assert len(events) > 25
    assert not {name for name in metrics if not re.search(rf"`{name}(_total)?[`{{]", reference)}
    assert events == set(re.findall(r"`(\w+\.\w+)`", reference.partition("## Log events")[2]))


def test_the_reference_quotes_what_status_prints() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text()
    section = reference.partition("## What status reports")[2].partition("\n## ")[0]
    quoted = re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)
    source = "\n".join(file.read_text() for file in PACKAGE.rglob("*.py"))
    assert len(quoted) > 5
    parts = [part.strip() for message in quoted for part in message.split("…")]
    assert not [part for part in parts if part not in source]
