""".github/ and the scripts of a release: valid, pinned, with few rights, and running what is there."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.cloudformation import load
from tests.deploy.conftest import Aws, Tool
from tests.e2e.compose import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ALL: dict[str, Any] = {file.stem: yaml.safe_load(file.read_text()) for file in WORKFLOWS}


def test_they_fit_the_schemas_of_github(aws: Aws, tool: Tool) -> None:
    for schema, files in (
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.dependabot", [ROOT / ".github" / "dependabot.yml"]),
    ):
        done = aws.run(tool("check-jsonschema"), "--builtin-schema", schema, *files)
        assert done.returncode == 0, done.stdout


def test_zizmor_finds_nothing_even_when_pedantic(aws: Aws, tool: Tool) -> None:
    done = aws.run(tool("zizmor"), "--offline", "--persona=pedantic", "--no-progress", ROOT / ".github")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "completed" in done.stderr + done.stdout or "No findings" in done.stdout


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_every_action_is_pinned_by_its_commit_and_says_which_version_that_is(file: Path) -> None:
    used = re.findall(r"uses: (\S+)(.*)", file.read_text())
    assert used
    for action, comment in used:
        if not action.startswith("./"):
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action), action
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action


def test_what_builds_a_release_is_pinned_by_digest() -> None:
    steps = [step for job in ALL["release"]["jobs"].values() for step in job.get("steps", [])]
    given = {step["uses"].split("@")[0]: step.get("with", {}) for step in steps if "uses" in step}
    images = [given["docker/setup-qemu-action"]["image"], given["docker/setup-buildx-action"]["driver-opts"]]
    assert all(re.search(r"@sha256:[0-9a-f]{64}$", image) for image in images)


def test_one_version_of_an_action_is_used_everywhere() -> None:
    pins = set(re.findall(r"uses: (\S+@\S+)", "".join(file.read_text() for file in WORKFLOWS)))
    assert len(pins) == len({pin.split("@")[0] for pin in pins})


@pytest.mark.parametrize("name", ALL)
def test_a_step_fails_when_any_command_of_a_pipe_fails(name: str) -> None:
    """As `cosign verify … | jq …` has to: GitHub's default shell has no pipefail, `shell: bash` has."""
    workflow = ALL[name]
    assert workflow["defaults"]["run"]["shell"] == "bash"
    assert not any("shell" in step for job in workflow["jobs"].values() for step in job.get("steps", []))


@pytest.mark.parametrize("name", ALL)
def test_a_job_has_the_rights_that_it_names_and_an_end(name: str) -> None:
    workflow = ALL[name]
    assert workflow["permissions"] == {}
    assert "concurrency" in workflow
    writes = set()
    for job in workflow["jobs"].values():
        assert "permissions" in job
        assert "timeout-minutes" in job or "uses" in job
        writes |= {right for right, kind in job["permissions"].items() if kind == "write"}
    allowed = {"ci": set(), "release": {"packages", "id-token", "contents"}, "deploy": {"id-token"}}
    assert writes == allowed[name]


def test_no_new_major_version_of_a_store_is_suggested() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    (compose,) = (each for each in updates if each["package-ecosystem"] == "docker-compose")
    ignored = {each["dependency-name"]: each["update-types"] for each in compose["ignore"]}
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    stores = {services[name]["image"].split(":")[0] for name in ("redis", "db")}
    assert ignored == {store: ["version-update:semver-major"] for store in stores}


def test_a_deployment_is_never_cancelled_halfway() -> None:
    for name in ("deploy", "release"):
        assert ALL[name]["concurrency"]["cancel-in-progress"] is False


def test_ci_runs_every_part_and_each_is_a_command_that_there_is() -> None:
    jobs = ALL["ci"]["jobs"]
    arguments = [part["arguments"] for part in jobs["check"]["strategy"]["matrix"]["include"]]
    paths = {path for each in arguments for path in each.split() if path.startswith("tests/")}
    assert paths == {f"tests/{part}" for part in ("unit", "integration", "e2e", "deploy")}
    assert all((ROOT / path).is_dir() for path in paths)
    run = (ROOT / ".ci" / "run").read_text()
    assert 'exec ./voting "$@"' in run
    assert {each.split()[0] for each in arguments} == {"lint", "test", "faults"}
    assert ".ci/run bench --quick" in str(jobs["bench"]["steps"])


def test_the_deployment_gives_the_document_what_it_takes() -> None:
    document = load()["Resources"]["Deploy"]["Properties"]["Content"]["parameters"]
    script = (ROOT / "deploy" / "ec2" / "deploy-release.sh").read_text()
    given = re.search(r'--parameters "([^"]*)"', script)
    assert given is not None
    assert {part.split("=")[0] for part in given[1].split(",")} == set(document)


def copy(folder: Path, changelog: str, version: str = "1.2.0") -> Path:
    """A repository that is as far as a release needs it."""
    (folder / "deploy").mkdir()
    shutil.copy(ROOT / "deploy" / "release-notes.sh", folder / "deploy")
    (folder / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
    (folder / "CHANGELOG.md").write_text(changelog)
    return folder / "deploy" / "release-notes.sh"


CHANGELOG = """# Changelog

## Unreleased

### Added
- Not yet.

## [1.2.0] - 2026-02-01

### Added
- This.

### Fixed
- That.

## 1.1.0
- Before.
"""


def notes(script: Path, version: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([script, version], capture_output=True, text=True, check=False)


def test_release_notes_are_the_section_of_the_changelog(tmp_path: Path) -> None:
    done = notes(copy(tmp_path, CHANGELOG), "1.2.0")
    assert done.returncode == 0
    assert done.stdout == "### Added\n- This.\n\n### Fixed\n- That.\n"


@pytest.mark.parametrize(
    ("version", "ours", "said"),
    [
        ("1.3.0", "1.2.0", "pyproject.toml has version 1.2.0, not 1.3.0"),
        ("1.3.0", "1.3.0", "no section '## 1.3.0'"),
        ("1.2", "1.2", "no section '## 1.2'"),  # the beginning of another
    ],
)
def test_a_release_that_nothing_is_said_of_is_refused(tmp_path: Path, version: str, ours: str, said: str) -> None:
    done = notes(copy(tmp_path, CHANGELOG, ours), version)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stdout == ""


DIGEST = f"sha256:{'0' * 64}"
OTHERS = [
    "amazon/cloudwatch-agent:latest", "caddy:2-alpine", "grafana/grafana:12.2.0", "postgres:18-alpine",
    "prom/prometheus:v3.5.0", "python:3.13-slim", "redis:8-alpine",
]  # fmt: skip


def digests(folder: Path, *images: str) -> Path:
    file = folder / "digests"
    file.write_text("".join(f"{image} {DIGEST}\n" for image in images))
    return file


@pytest.mark.usefixtures("engine")
def test_a_packed_release_names_every_image_by_digest(tmp_path: Path) -> None:
    archive = tmp_path / "voting-1.2.3.tar.gz"
    given = digests(tmp_path, "voting", *OTHERS)
    subprocess.run([ROOT / "deploy" / "pack.sh", "1.2.3", given], cwd=tmp_path, check=True)
    subprocess.run(["tar", "-xzf", archive, "-C", tmp_path], check=True)
    release = tmp_path / "voting-1.2.3"
    assert (release / "deploy" / "digest").read_text() == f"{DIGEST}\n"
    command = ["docker", "compose", "--profile", "*", "-f", "compose.yaml", "-f", "deploy/cloudwatch/compose.yaml"]
    done = subprocess.run([*command, "config", "--images"], cwd=release, capture_output=True, text=True, check=True)
    named = {image for image in done.stdout.split() if not re.fullmatch(r"voting(-seed)?:[\d.]+", image)}
    assert named == {f"{image}@{DIGEST}" for image in OTHERS if not image.startswith("python:")}
    for file in ("Dockerfile", "seed-data/Dockerfile"):
        bases = re.findall(r"^FROM (\S+)", (release / file).read_text(), re.MULTILINE)
        assert set(bases) == {f"python:3.13-slim@{DIGEST}"}


@pytest.mark.parametrize("missing", ["voting", "redis:8-alpine", "python:3.13-slim"])
def test_a_release_without_the_digest_of_an_image_is_not_packed(tmp_path: Path, missing: str) -> None:
    given = digests(tmp_path, *({"voting", *OTHERS} - {missing}))
    done = subprocess.run(
        [ROOT / "deploy" / "pack.sh", "1.2.3", given], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"has no digest of {missing}" in done.stderr
    assert not list(tmp_path.glob("*.gz"))


def test_the_digests_of_a_release_are_those_that_the_tags_have_now(tmp_path: Path) -> None:
    """A stand-in for Docker, which has no registry here, answers as `buildx imagetools inspect` does."""
    program = tmp_path / "docker"
    program.write_text(f"""#!/bin/sh
    [ "$1 $2 $3 $4 $5" = "buildx imagetools inspect --format {{{{.Manifest.Digest}}}}" ] || exit 2
    [ "$6" != "$MISSING" ] && echo {DIGEST}
    """)
    program.chmod(0o755)

    def ask(missing: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "MISSING": missing}
        script = ROOT / "deploy" / "digests.sh"
        return subprocess.run([script], env=environment, capture_output=True, text=True, check=False)

    assert ask("").stdout.splitlines() == [f"{image} {DIGEST}" for image in OTHERS]
    assert ask("postgres:18-alpine").returncode != 0


def test_archive_and_image_are_signed_and_checked_under_one_identity_with_one_version_of_cosign() -> None:
    """Cosign and GitHub do not run here; what they are asked is read off the files."""
    template = (ROOT / "deploy" / "ec2" / "template.yaml").read_text()
    release, deploy = ((ROOT / ".github" / "workflows" / f"{name}.yml").read_text() for name in ("release", "deploy"))
    identity = "https://github.com/$GITHUB_REPOSITORY/.github/workflows/release.yml@refs/tags/v$VERSION"
    for command in ("cosign verify ", "cosign verify-blob "):
        asked = deploy.split(command)[1].split("--certificate-oidc-issuer https://token.actions")[0]
        assert f'--certificate-identity "{identity}"' in asked
    assert "SIGNER='https://github.com/${Repository}/.github/workflows/release.yml'" in template
    assert '--certificate-identity "$SIGNER@refs/tags/v$version"' in template
    versions = re.findall(r"cosign-release: v(\S+)", release + deploy) + re.findall(
        r"cosign/releases/download/v([\d.]+)", template
    )
    assert len(versions) == 4
    assert len(set(versions)) == 1
    unpack = template.index('tar -xzf "$draft/archive"')
    assert template.index('"$cosign" verify-blob') < unpack


def test_the_archive_is_the_same_for_the_same_commit_and_has_what_an_instance_needs(tmp_path: Path) -> None:
    sums = []
    given = digests(tmp_path, "voting", *OTHERS)
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        subprocess.run([ROOT / "deploy" / "pack.sh", "1.2.3", given], cwd=folder, check=True)
        archive = folder / "voting-1.2.3.tar.gz"
        sums.append(hashlib.sha256(archive.read_bytes()).hexdigest())
        assert (folder / f"{archive.name}.sha256").read_text() == f"{sums[-1]}  {archive.name}\n"
    assert sums[0] == sums[1]
    held = subprocess.run(["tar", "-tzf", archive], capture_output=True, text=True, check=True).stdout.split()
    needed = ["compose.yaml", "Dockerfile", "pyproject.toml", "requirements/service.txt", "src/voting/__main__.py"]
    needed += ["healthchecks/redis.sh", "deploy/deploy.sh", "deploy/ec2/boot.sh", "deploy/ec2/settings.py"]
    needed += ["deploy/compose.rds.yaml", "deploy/ec2/voting.service", "secrets/README.md"]
    assert {f"voting-1.2.3/{file}" for file in needed} <= set(held)
    assert not any("/tests/" in file for file in held)


def test_what_is_not_a_version_is_not_deployed(aws: Aws) -> None:
    done = aws.run(ROOT / "deploy" / "ec2" / "deploy-release.sh", "voting-deploy", "i-0", "1.2.3,digest=x")
    assert done.returncode == 2
    assert "is not a version" in done.stderr


def test_a_deployment_is_sent_and_waited_for(aws: Aws) -> None:
    """Moto carries out no command, but says of each that it succeeded."""
    instance = aws("ec2", "run-instances", "--image-id", "ami-12c6146b")["Instances"][0]["InstanceId"]
    script = ROOT / "deploy" / "ec2" / "deploy-release.sh"
    done = aws.run(script, "voting-deploy", instance, "1.2.3", "0" * 64)
    assert done.returncode == 0, done.stderr
    assert f"1.2.3 on {instance}: Success" in done.stderr
    sent = aws("ssm", "list-commands")["Commands"][-1]
    assert sent["DocumentName"] == "voting-deploy"
    assert sent["Parameters"] == {"version": ["1.2.3"], "sha256": ["0" * 64], "digest": [""]}
