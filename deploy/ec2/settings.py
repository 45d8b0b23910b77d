#!/usr/bin/env python3
"""settings.py RELEASE: write the settings of an instance for Compose: RELEASE/.env, and the files of SECRETS_DIR.

They come from Parameter Store, below SSM_PREFIX. NAME becomes a line of .env; a lower-case name, such as secret_key,
becomes a file for the service `secrets` (docs/operations.md lists both). The password of a database in RDS comes from
Secrets Manager. The instance reads them for the containers, which therefore need no internet access and no AWS rights.

Nothing is written unless everything could be read; otherwise the exit code is 1 and the message names the fix. Runs
with the system's Python (3.9 on Amazon Linux 2023), its standard library, and the AWS CLI.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path("/opt/voting")
CA = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
READER = 10001  # the group that the service `secrets` runs as


class Failed(Exception):
    """The settings could not be read; the message says why and what to do."""


def main(release: Path, installation: Path = Path("/etc/voting/installation"), root: Path = ROOT) -> None:
    """Read all settings, then write them.

    Raises:
        Failed: a setting could not be read; nothing was written.
    """
    facts = dict(part.split("=", 1) for part in shlex.split(installation.read_text(encoding="utf-8"), comments=True))
    parameters = read_parameters(facts["SSM_PREFIX"], facts["AWS_REGION"])
    files = {name: value for name, value in parameters.items() if name.islower()}
    lines = {name: value for name, value in parameters.items() if name.isupper()}
    if unknown := sorted(parameters.keys() - files.keys() - lines.keys()):
        raise Failed(
            f"Parameter Store: {', '.join(unknown)}: use the name of a setting (POLL_QUESTION) or secret (secret_key)"
        )
    if facts["DATABASE_SECRET"]:
        files["postgres_password"] = read_password(facts["DATABASE_SECRET"], facts["AWS_REGION"])
    if "database_host" in files and "database_ca.pem" not in files:
        files["database_ca.pem"] = download(facts.get("DATABASE_CA", CA))
    lines |= {"VOTING_VERSION": version_of(release), "SECRETS_DIR": str(root / "secrets")}
    if facts["IMAGE"]:
        lines["VOTING_IMAGE"] = facts["IMAGE"]

    secrets = root / "secrets"
    secrets.mkdir(parents=True, exist_ok=True)
    set_owner(secrets, 0o750)
    for name, value in files.items():
        write(secrets / name, value, 0o440)
    for gone in {file.name for file in secrets.iterdir()} - files.keys():
        (secrets / gone).unlink()
    write(release / ".env", "".join(f"{name}={quoted(name, lines[name])}\n" for name in sorted(lines)), 0o440)


def version_of(release: Path) -> str:
    """Return the version of a release: the name of its directory, after links are resolved."""
    return release.resolve().name


def read_parameters(prefix: str, region: str) -> "dict[str, str]":
    """Return all parameters below the prefix, by the name after it."""
    arguments = ["ssm", "get-parameters-by-path", "--path", prefix, "--with-decryption"]
    found = aws(region, *arguments, permission=f"ssm:GetParametersByPath on {prefix}")
    return {each["Name"].rsplit("/", 1)[1]: each["Value"] for each in found["Parameters"]}


def read_password(secret: str, region: str) -> str:
    """Return the password from a secret of RDS, which holds user name and password."""
    arguments = ["secretsmanager", "get-secret-value", "--secret-id", secret]
    found = aws(region, *arguments, permission=f"secretsmanager:GetSecretValue on {secret}")
    return str(json.loads(found["SecretString"])["password"])


def aws(region: str, *arguments: str, permission: str) -> "dict[str, Any]":
    """Run the AWS CLI and return its JSON output.

    Raises:
        Failed: the command failed; the message has its output and the permission that it needs.
    """
    command = ["aws", "--region", region, "--output", "json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise Failed(f"{done.stderr.strip()}\nThe instance needs the permission {permission}, and internet access.")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def download(url: str) -> str:
    """Return the certificates of the authorities that RDS uses."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return str(answer.read(), "utf-8")
    except (urllib.error.URLError, OSError) as error:
        raise Failed(f"{url} cannot be fetched ({error}): check the internet connection") from error


def quoted(name: str, value: str) -> str:
    """Return a value quoted for .env, so that Compose reads it unchanged."""
    if not value.isprintable():
        raise Failed(f"Parameter Store: {name} has a line break or another character that a setting cannot contain")
    if "'" not in value and not value.endswith("\\"):
        return f"'{value}'"
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def write(path: Path, content: str, mode: int) -> None:
    """Replace a file atomically."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(content, encoding="utf-8")
    set_owner(draft, mode)
    draft.rename(path)


def set_owner(path: Path, mode: int) -> None:
    """Let root and the service `secrets` read a file."""
    os.chown(path, -1, READER)
    path.chmod(mode)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except Failed as failed:
        sys.exit(f"settings: {failed}")
