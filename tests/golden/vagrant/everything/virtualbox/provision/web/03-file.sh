#!/bin/sh -e
install -D -m 0644 /dev/stdin /etc/motd <<'END'
two
lines
END
chown root:root /etc/motd
