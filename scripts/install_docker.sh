#!/usr/bin/env bash
# The Docker engine of the stack suite, from Debian's packages; needs root the first time.
#
# Debian 12's own is too old: engine 20.10 refuses `start_interval`, compose 1.29 `include`. So what
# a user has (engine, client, compose, buildx) is Debian 13's, unpacked into a folder of its own, and
# what the engine starts is Debian 12's: Debian 13's runc and containerd want a newer C library.
set -euo pipefail

folder=/opt/ml-pipeline-template/docker

declare -A programs=(
    [containerd]=/usr/bin/containerd [runc]=/usr/sbin/runc [tini]=/usr/bin/tini-static
    [iptables]=/usr/sbin/iptables [mmdebstrap]=/usr/bin/mmdebstrap
)
missing=()
for package in "${!programs[@]}"; do
    [[ -x ${programs[$package]} ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)) && [[ -d $folder ]]; then
    exit 0
fi
work=$(mktemp --directory)
policy=/usr/sbin/policy-rc.d
trap 'rm -rf "$work"' EXIT
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update

if ((${#missing[@]} > 0)); then
    echo "installing ${missing[*]}"
    # The suite starts an engine of its own: no service may start by itself.
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod +x "$policy"
        trap 'rm -rf "$work" "$policy"' EXIT
    fi
    apt-get -qq install --yes --no-install-recommends "${missing[@]}" > /dev/null
fi

if [[ ! -d $folder ]]; then
    echo "unpacking Debian 13's docker into $folder"
    # Debian 13 from the mirror that this machine uses, with lists and a state of their own.
    # shellcheck disable=SC2016  # apt's fields, not the shell's
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Label: Debian' | head -1)
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    mkdir -p "$work"/root "$work"/{lists,archives}/partial
    echo "deb [signed-by=$key] $mirror trixie main" > "$work/root/trixie.list"
    touch "$work/status"
    options=(
        -o "Dir::Etc::SourceList=$work/root/trixie.list" -o Dir::Etc::SourceParts=-
        -o "Dir::State::Lists=$work/lists" -o "Dir::State::Status=$work/status"
        -o "Dir::Cache::Archives=$work/archives" -o Dir::Cache::PkgCache= -o Dir::Cache::SrcPkgCache=
        -o APT::Sandbox::User=root
    )
    cd "$work"
    apt-get -qq "${options[@]}" update
    apt-get -qq "${options[@]}" download docker.io docker-cli docker-compose docker-buildx
    for archive in *.deb; do
        dpkg-deb --extract "$archive" root
    done
    mkdir -p "$(dirname "$folder")"
    mv root "$folder"
fi
