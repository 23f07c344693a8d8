#!/bin/sh
# A service at a port that is known for another one.
set -eu
port=$(cat "$LABCTL_SECRETS/masked-port")
case $(cat "$LABCTL_SECRETS/masked") in
  http) serve="/usr/sbin/nginx -c /etc/nginx/masked.conf" ;;
  ssh) serve="/usr/sbin/sshd -D -p $port -o PidFile=none" ;;
  telnet) serve="/usr/bin/busybox telnetd -F -p $port" ;;
esac
cat >/etc/nginx/masked.conf <<END
daemon off;
pid /run/masked.pid;
events {}
http {
	server {
		listen $port;
		return 200 "Acme Anvils: nothing to see\n";
	}
}
END
cat >/etc/systemd/system/masked.service <<END
[Service]
ExecStart=$serve
RuntimeDirectory=sshd
RuntimeDirectoryPreserve=yes
[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl disable --now nginx
systemctl enable --now masked.service
