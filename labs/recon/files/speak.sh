#!/bin/sh
# speak.sh NAME SETTING: a service at the port NAME-port that says the secret NAME to whoever connects.
set -eu
name=$1
port=$(cat "$LABCTL_SECRETS/$name-port")
install -d /srv/speak
{
  printf 'Acme maintenance console. Asset tag: '
  cat "$LABCTL_SECRETS/$name"
  printf '\r\nlogin: '
} >/srv/speak/words
cat >/etc/systemd/system/speak.socket <<END
[Socket]
ListenStream=[::]:$port
$2
Accept=yes
[Install]
WantedBy=sockets.target
END
cat >/etc/systemd/system/speak@.service <<'END'
[Service]
ExecStart=-/bin/sh -c 'cat /srv/speak/words; read -r name; echo denied'
StandardInput=socket
StandardError=journal
RuntimeMaxSec=60
DynamicUser=yes
END
systemctl daemon-reload
systemctl enable --now speak.socket
