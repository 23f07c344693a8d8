#!/bin/sh -e
install -D -m 0644 /var/tmp/labctl-upload /var/www/html/index.html
chown root:root /var/www/html/index.html
rm -f /var/tmp/labctl-upload
