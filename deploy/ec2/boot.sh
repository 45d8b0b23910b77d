#!/bin/sh
# boot.sh [FUNCTION]: prepare an instance and start voting on it: data volume, Docker Engine with Compose, security updates, unit,
# stack. For Amazon Linux 2023, Ubuntu and Debian, as root. It ends at the first step that fails, and names it. Each step skips what
# is done already, so a second run continues there. With the name of a function, such as engine, it runs only that function.
set -eu

COMPOSE=v2.40.3 # for Amazon Linux, whose packages of these two are missing or too old to build
BUILDX=v0.29.1

VOLUME=''
# shellcheck source=/dev/null
[ ! -e /etc/voting/installation ] || . /etc/voting/installation
release=$(CDPATH='' cd -- "$(dirname "$0")/../.." && pwd -P)
plugins=/usr/local/lib/docker/cli-plugins
data=/var/lib/docker/volumes

fail() { echo "boot: $*" >&2; exit 1; }

step() { # NAME FUNCTION: run it in a shell of its own, which ends at the first command that fails
    echo "boot: $1"
    "$0" "$2" || fail "$1 failed: see above. Fix the cause, then run $0 again"
}

data_volume() { # mount VOLUME where Docker keeps named volumes
    if [ -z "$VOLUME" ]; then
        echo 'no data volume: the data stays on the system disk'
        return
    fi
    device=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$(echo "$VOLUME" | tr -d -)
    if mountpoint -q "$data"; then
        resize2fs "$device" # if the volume has grown
    else
        waited=0
        until [ -b "$device" ]; do # CloudFormation attaches it after the instance has started
            [ "$waited" -lt "${VOLUME_PATIENCE:-300}" ] || fail "$device does not exist: is $VOLUME attached to this instance?"
            sleep 1
            waited=$((waited + 1))
        done
        found=0
        blkid -p "$device" >/dev/null || found=$?
        case $found in
            0) # a file system from a snapshot may be smaller than the volume
                e2fsck -fp "$device" || [ $? -eq 1 ]
                resize2fs "$device"
                ;;
            2) mkfs.ext4 -q -L voting-data "$device" ;; # the volume is empty
            *) fail "$device cannot be read" ;;
        esac
        mkdir -p "$data"
        grep -q '^LABEL=voting-data ' /etc/fstab || echo "LABEL=voting-data $data ext4 defaults,noatime,nofail 0 2" >>/etc/fstab
        mount "$device" "$data"
        mkdir -p /etc/systemd/system/docker.service.d # Docker must not start without the data
        printf '[Unit]\nRequiresMountsFor=%s\n' "$data" >/etc/systemd/system/docker.service.d/data.conf
    fi
}

plugin() { # NAME URL SHA256: install exactly this plugin of the docker command
    ! echo "$3  $plugins/$1" | sha256sum -c --status - 2>/dev/null || return 0
    mkdir -p "$plugins"
    curl -fsSL --retry 5 "$2" -o "$plugins/$1.new"
    echo "$3  $plugins/$1.new" | sha256sum -c --quiet -
    chmod 755 "$plugins/$1.new"
    mv "$plugins/$1.new" "$plugins/$1"
}

engine() {
    mkdir -p /etc/docker
    echo '{"live-restore": true}' >/etc/docker/daemon.json # containers keep running while the engine is updated
    # shellcheck source=/dev/null
    . /etc/os-release
    case $ID in
        amzn)
            dnf -y -q install docker dnf-automatic e2fsprogs
            github=https://github.com/docker
            case $(uname -m) in
                x86_64)
                    compose=x86_64:dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372
                    buildx=amd64:7d2d7d6d4680aa349614965aaa33ccec43f1a9a21e908a5ce4cb6adfa5ad5141
                    ;;
                aarch64)
                    compose=aarch64:d26373b19e89160546d15407516cc59f453030d9bc5b43ba7faf16f7b4980137
                    buildx=arm64:50e85c4e290b698908421161c1aee069bcc5d4a65b7b7201bfac3a176b223a7e
                    ;;
                *) fail "there is no Compose for $(uname -m)" ;;
            esac
            plugin docker-compose "$github/compose/releases/download/$COMPOSE/docker-compose-linux-${compose%:*}" "${compose#*:}"
            plugin docker-buildx "$github/buildx/releases/download/$BUILDX/buildx-$BUILDX.linux-${buildx%:*}" "${buildx#*:}"
            ;;
        ubuntu | debian)
            export DEBIAN_FRONTEND=noninteractive
            client='docker-compose docker-cli'
            [ "$ID" = debian ] || client=docker-compose-v2
            apt-get -qq -o DPkg::Lock::Timeout=300 -o APT::Update::Error-Mode=any update
            # shellcheck disable=SC2086 # words
            apt-get -qq -o DPkg::Lock::Timeout=300 --no-install-recommends install \
                docker.io $client docker-buildx unattended-upgrades curl ca-certificates
            [ "$ID" = debian ] || command -v aws >/dev/null || snap install aws-cli --classic
            ;;
        *) fail "$ID is not supported: use Amazon Linux 2023, Ubuntu or Debian" ;;
    esac
    systemctl daemon-reload
    systemctl enable --now docker
    docker compose version
}

security_updates() {
    if [ -d /etc/dnf ]; then
        echo latest >/etc/dnf/vars/releasever # otherwise Amazon Linux stays at the release of its image
        sed -i -e 's/^upgrade_type *=.*/upgrade_type = security/' -e 's/^apply_updates *=.*/apply_updates = yes/' \
            /etc/dnf/automatic.conf
        systemctl enable --now dnf-automatic.timer
    else
        printf 'APT::Periodic::Update-Package-Lists "1";\nAPT::Periodic::Unattended-Upgrade "1";\n' \
            >/etc/apt/apt.conf.d/20auto-upgrades
    fi
}

unit() {
    cp "$release/deploy/ec2/voting.service" /etc/systemd/system/voting.service
    systemctl daemon-reload
    systemctl enable voting
}

start() {
    "$release/deploy/ec2/update.sh"
    systemctl start voting
}

[ "$(id -u)" = 0 ] || fail 'run this as root'
if [ $# -gt 0 ]; then
    "$@"
    exit
fi
step 'data volume' data_volume
step 'Docker Engine and Compose' engine
step 'security updates' security_updates
step 'unit voting.service' unit
step 'the stack' start
echo 'boot: voting runs'
