#!/bin/sh
# The shop, and the shop of next month at a port that nobody is to guess.
set -eu
cat >/etc/nginx/sites-enabled/default <<END
server {
	listen 80;
	root /srv/shop;
}
server {
	listen $(cat "$LABCTL_SECRETS/staging");
	root /srv/staging;
}
END
systemctl enable nginx
systemctl restart nginx
