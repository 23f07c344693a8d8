#!/bin/sh -e
install -D -m 0644 /dev/stdin /etc/motd <<'END'
nothing to see
END
chown root:root /etc/motd
