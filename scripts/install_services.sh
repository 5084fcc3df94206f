#!/usr/bin/env bash
# What the distributed, the monitoring and the CI suites need, from Debian's packages; needs root
# the first time.
set -euo pipefail

missing=()
[[ -x /usr/bin/curl ]] || missing+=(curl)
[[ -x /usr/bin/redis-server ]] || missing+=(redis-server)
compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null || missing+=(postgresql)
[[ -x /usr/bin/promtool ]] || missing+=(prometheus)
[[ -x /usr/bin/amtool ]] || missing+=(prometheus-alertmanager)
[[ -x /usr/bin/prometheus-pushgateway ]] || missing+=(prometheus-pushgateway)
if ((${#missing[@]} == 0)); then
    exit 0
fi
echo "installing ${missing[*]}"
# The tests start servers of their own, in folders of their own: no service may start by itself.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --yes --no-install-recommends "${missing[@]}" > /dev/null
