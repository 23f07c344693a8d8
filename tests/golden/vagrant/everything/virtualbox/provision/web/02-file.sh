#!/bin/sh -e
install -D -m 0600 /var/tmp/labctl-upload /var/www/html/index.html
chown www-data:www-data /var/www/html/index.html
rm -f /var/tmp/labctl-upload
