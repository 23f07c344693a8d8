#!/bin/sh -e
missing=''
for package in nftables; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || :
  [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -qy --no-install-recommends install $missing
