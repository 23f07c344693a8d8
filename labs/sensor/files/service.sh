#!/bin/sh
# add-service NAME [ARGUMENT]...: run /usr/local/sbin/NAME from now on; it says itself when it is ready.
set -eu
name=$1
shift
cat >"/etc/systemd/system/$name.service" <<UNIT
[Unit]
Description=$name of the lab
After=labctl-network.service

[Service]
Type=notify
ExecStart=/usr/bin/python3 /usr/local/sbin/$name $*
DynamicUser=yes
AmbientCapabilities=CAP_NET_BIND_SERVICE
Restart=on-failure

[Install]
WantedBy=multi-user.target
UNIT
chmod 600 "/etc/systemd/system/$name.service"
systemctl daemon-reload
systemctl enable "$name"
systemctl restart "$name"
