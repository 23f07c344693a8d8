#!/bin/sh -e
cat >/etc/systemd/system/share.service <<'UNIT'
[Unit]
Description=A careless file share
[Service]
ExecStart=/usr/bin/python3 -m http.server 8000 --bind :: --directory /srv/share
DynamicUser=yes
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --now share.service

