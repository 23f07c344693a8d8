#!/bin/sh
# The vault: pages and a clerk's files, for the inner network alone.
set -eu
id clerk >/dev/null 2>&1 || useradd --create-home --shell /bin/bash clerk
# not by PAM, whose hash takes an emulated machine seconds
printf 'clerk:%s\n' "$(cat "$LABCTL_SECRETS/clerk")" | chpasswd -c SHA512
printf 'day,item,amount\n1,anvil,80\n2,hammer,20\n' >~clerk/ledger.csv
install -m 600 -o clerk -g clerk "$LABCTL_SECRETS/gold" ~clerk/gold.txt
printf 'PasswordAuthentication yes\n' >/etc/ssh/sshd_config.d/00-lab.conf
systemctl restart ssh

install -d -m 755 /srv/web
printf '<title>Vault</title>\n<p>For the inner network alone: %s\n' "$(cat "$LABCTL_SECRETS/page")" >/srv/web/index.html
systemctl daemon-reload
systemctl enable --now web.service
