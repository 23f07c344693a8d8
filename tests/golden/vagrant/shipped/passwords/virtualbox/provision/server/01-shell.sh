#!/bin/sh -e
export LABCTL_SECRETS=/run/labctl-secrets
if [ ! -d $LABCTL_SECRETS ]; then
  echo 'This machine is told secrets, which are in no file: labctl up tells them, and plain Vagrant cannot.' >&2
  exit 1
fi
id maria >/dev/null 2>&1 || useradd --create-home --shell /bin/bash maria
printf 'maria:%s\n' "$(cat "$LABCTL_SECRETS/weak")" | chpasswd
install -m 600 -o maria -g maria "$LABCTL_SECRETS/note" ~maria/note.txt

