"""The first start of an instance: cloud-init takes the user data; in a container it runs until the network ends."""

import hashlib
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import require
from tests.deploy.cloudformation import user_data
from tests.e2e.compose import ROOT, docker

IMAGE = "voting-boot-test"

# The public image has neither of these, and both operating systems do.
DOCKERFILE = """FROM python:3.13-slim
RUN apt-get -qq update && apt-get -qq install --no-install-recommends curl e2fsprogs >/dev/null
"""

# What CloudFormation would hear, on loopback, which is all the network that the container has.
LISTENER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        print("TOLD", self.headers["Content-Type"] or "-", body, flush=True)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 8000), Handler)
print("LISTENING", flush=True)
server.serve_forever()
"""


# In place of cosign, which needs Sigstore's servers: a bundle is an identity and the SHA-256 that it signs.
COSIGN = """#!/bin/sh
[ "$1 $2 $5 $7" = "verify-blob --bundle --certificate-identity --certificate-oidc-issuer" ] || exit 2
[ "$8" = https://token.actions.githubusercontent.com ] || exit 2
echo "$6 $(sha256sum <"$4")" | cmp -s - "$3"
"""
SIGNER = "https://github.com/owner/voting/.github/workflows/release.yml@refs/tags/v"


@pytest.fixture(scope="module")
def image(engine: None) -> Iterator[str]:  # noqa: ARG001
    subprocess.run(["docker", "build", "-q", "-t", IMAGE, "-"], input=DOCKERFILE, text=True, check=True, timeout=300)
    yield IMAGE
    docker("image", "rm", "-f", IMAGE)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What cloud-init would have written, and a release to fetch, as files to be laid over a container's."""
    root = tmp_path_factory.mktemp("machine")
    text = user_data(Repository="owner/voting", Version="0.1.0", Ready="http://127.0.0.1:8000/ready")
    for project in ("owner/voting", "sigstore/cosign"):
        text = text.replace(f"https://github.com/{project}/releases/download", "file:///releases")
    given = yaml.safe_load(re.sub(r"\bsum=[0-9a-f]{64}\b", f"sum={_sum(COSIGN.encode())}", text))
    for file in given["write_files"]:
        path = root / file["path"].lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file["content"])
        path.chmod(int(file["permissions"], 8))
    for version in ("0.1.0", "0.2.0", "0.3.0"):
        archive = root / "releases" / f"v{version}" / f"voting-{version}.tar.gz"
        archive.parent.mkdir(parents=True)
        with tarfile.open(archive, "w:gz") as release:
            for part in ("compose.yaml", "healthchecks", "deploy"):
                release.add(ROOT / part, f"voting-{version}/{part}")
        bundle = archive.with_name(f"{archive.name}.sigstore.json")
        bundle.write_text(f"{SIGNER}{version} {_sum(archive.read_bytes())}  -\n")
    archive.write_bytes(archive.read_bytes() + b"\0")  # 0.3.0 is not what was signed
    for machine in ("amd64", "arm64"):
        cosign = root / "releases" / "v3.0.6" / f"cosign-linux-{machine}"
        cosign.parent.mkdir(exist_ok=True)
        cosign.write_text(COSIGN)
    (root / "listener.py").write_text(LISTENER)
    return root


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def run(machine: Path, script: str, *options: str) -> str:
    """Run a shell script as root in a container with these files and no network; what it said."""
    command = ["docker", "run", "--rm", "--network", "none", *options, "-v", f"{machine}:/given:ro", IMAGE]
    script = f"cp -r --preserve=mode /given/. /\n{script}"
    done = subprocess.run([*command, "sh", "-c", script], capture_output=True, text=True, check=False, timeout=180)
    return done.stdout + done.stderr


def test_cloud_init_takes_the_user_data(tmp_path: Path) -> None:
    file = tmp_path / "user-data"
    file.write_text(user_data(Repository="owner/voting"))
    command = [require("cloud-init", "cloud-init"), "schema", "--config-file", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Valid" in done.stdout


@pytest.mark.usefixtures("image")
def test_the_start_comes_as_far_as_the_network_says_so_and_can_be_run_again(machine: Path) -> None:
    said = run(
        machine,
        """python3 /listener.py >/told & until grep -q LISTENING /told; do :; done
        voting-boot; echo "ended with $?"; ls -A /opt/voting/releases; echo again
        voting-boot; echo "ended with $?"; ls -A /opt/voting/releases; cat /told""",
    )
    first, second = said.split("again\n", 1)
    for run_ in (first, second):
        assert "boot: data volume\nno data volume" in run_
        assert "boot: Docker Engine and Compose\n" in run_
        assert "boot: security updates" not in run_
        assert "ended with 1\n0.1.0\n" in run_  # the release is unpacked, and no draft is left
    assert said.count("boot: Docker Engine and Compose failed: see above") == 2
    assert "Temporary failure resolving" in said or "Could not resolve" in said
    assert said.count("the first start failed: see above. Fix the cause, then run voting-boot again") == 2
    told = [line.split(" ", 2)[2] for line in said.splitlines() if line.startswith("TOLD - ")]
    assert [json.loads(each)["Status"] for each in told] == ["FAILURE", "FAILURE"]


@pytest.mark.usefixtures("image")
def test_a_release_that_is_not_there_or_not_the_right_one_is_refused(machine: Path) -> None:
    said = run(
        machine,
        f"""voting-release 9.9.9; echo "ended with $?"
        voting-release 0.1.0 {"0" * 64}; echo "ended with $?"; ls -A /opt/voting/releases | wc -l
        voting-release 0.1.0; echo "ended with $?"; voting-release 0.1.0; echo "ended with $?\"""",
    )
    assert "v9.9.9/voting-9.9.9.tar.gz cannot be fetched: check Repository, Version" in said
    assert f"is not the release with SHA-256 {'0' * 64}" in said
    assert "ended with 1\nended with 1\n0\n/opt/voting/releases/0.1.0\nended with 0\n" in said.replace("\n\n", "\n")


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize(
    ("version", "change", "said"),
    [
        ("0.3.0", "", "0.3.0.tar.gz is not signed by https://github.com/owner/voting/.github/workflows/release.yml"),
        ("0.2.0", "rm v0.2.0/*.sigstore.json", "0.2.0.tar.gz.sigstore.json cannot be fetched"),
        ("0.2.0", "cp v0.1.0/*.gz v0.2.0/voting-0.2.0.tar.gz", "is not signed by"),
        ("0.2.0", "cd v0.2.0; sed -i s/release.yml/ci.yml/ *.json", "is not signed by"),
        # signed, but for another version: an old release under a new name
        ("0.2.0", "for a in gz gz.sigstore.json; do cp v0.1.0/*.$a v0.2.0/voting-0.2.0.tar.$a; done", "is not signed"),
        ("0.2.0", "for a in v3.0.6/*; do echo exit 0 >>$a; done", "cosign does not have the SHA-256"),
        ("0.2.0", "rm v3.0.6/*", "cannot be fetched"),
    ],
)
def test_what_the_release_workflow_did_not_sign_is_not_unpacked(
    machine: Path, version: str, change: str, said: str
) -> None:
    script = f"""(cd /releases; {change or ":"})
    voting-release {version}; echo "ended with $?"; ls -A /opt/voting/releases | wc -l"""
    found = run(machine, script)
    assert "ended with 1\n0\n" in found
    assert said in found


@pytest.mark.usefixtures("image")
def test_a_cosign_that_was_changed_on_the_instance_is_replaced_before_it_is_asked(machine: Path) -> None:
    script = (
        """voting-release 0.1.0; echo 'exit 0' >/usr/local/sbin/cosign; voting-release 0.3.0; echo "ended with $?\""""
    )
    assert "is not signed by" in (found := run(machine, script))
    assert "ended with 1" in found


@pytest.mark.usefixtures("image")
def test_a_plugin_of_docker_is_installed_only_with_its_sum_and_replaced_by_another_version(machine: Path) -> None:
    said = run(
        machine,
        f"""boot=$(voting-release 0.1.0)/deploy/ec2/boot.sh; installed=/usr/local/lib/docker/cli-plugins/docker-x
        printf one >/one; printf two >/two
        "$boot" plugin docker-x file:///one {_sum(b"two")} || echo "ended with $?"; ls "$installed"
        "$boot" plugin docker-x file:///one {_sum(b"one")}; cat "$installed"; rm /one
        "$boot" plugin docker-x file:///one {_sum(b"one")} && "$boot" plugin docker-x file:///two {_sum(b"two")}
        cat "$installed"; stat -c ' %a' "$installed\"""",
    )
    assert "ended with 1\n" in said
    assert "No such file" in said
    assert "onetwo 755\n" in said


MAY_MOUNT = [
    "--cap-add=SYS_ADMIN", "--security-opt=apparmor=unconfined", "--security-opt=seccomp=unconfined",
    "--device-cgroup-rule=b 7:* rmw", "--device-cgroup-rule=c 10:237 rmw",
]  # fmt: skip

VOLUME = """
set -e
mknod /dev/loop-control c 10 237
for number in $(seq 0 63); do mknod "/dev/loop$number" b 7 "$number"; done
mkdir -p /dev/disk/by-id
truncate -s 32M /disk
device=$(losetup -f --show /disk)
trap 'umount /var/lib/docker/volumes; losetup -d "$device"' EXIT
ln -s "$device" /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123
sed -i "s/^VOLUME=.*/VOLUME='vol-0123'/" /etc/voting/installation
boot=$(voting-release 0.1.0)/deploy/ec2/boot.sh
"$boot" data_volume
echo kept >/var/lib/docker/volumes/file
before=$(stat -fc %b /var/lib/docker/volumes)
umount /var/lib/docker/volumes
truncate -s 64M /disk
losetup -c "$device"
"$boot" data_volume
"$boot" data_volume
cat /var/lib/docker/volumes/file /etc/fstab /etc/systemd/system/docker.service.d/data.conf
[ "$(stat -fc %b /var/lib/docker/volumes)" -gt "$before" ] && echo grown
"""


@pytest.mark.usefixtures("image")
def test_the_data_volume_is_formatted_once_mounted_and_grown_and_docker_waits_for_it(machine: Path) -> None:
    said = run(machine, VOLUME, *MAY_MOUNT)
    assert "kept\n" in said, said
    assert "grown\n" in said, said
    assert said.count("LABEL=voting-data /var/lib/docker/volumes ext4") == 1
    assert "RequiresMountsFor=/var/lib/docker/volumes" in said


@pytest.mark.usefixtures("image")
def test_a_volume_that_is_not_attached_is_named(machine: Path) -> None:
    said = run(
        machine,
        """sed -i "s/^VOLUME=.*/VOLUME='vol-0123'/" /etc/voting/installation
        VOLUME_PATIENCE=1 $(voting-release 0.1.0)/deploy/ec2/boot.sh""",
    )
    assert "Elastic_Block_Store_vol0123 does not exist: is vol-0123 attached to this instance?" in said
    assert "boot: data volume failed" in said
