#!/bin/sh -e
export LABCTL_SECRETS=/run/labctl-secrets
if [ ! -d $LABCTL_SECRETS ]; then
  echo 'This machine is told secrets, which are in no file: labctl up tells them, and plain Vagrant cannot.' >&2
  exit 1
fi
printf 'PasswordAuthentication yes\n' >/etc/ssh/sshd_config.d/00-lab.conf
systemctl restart ssh

