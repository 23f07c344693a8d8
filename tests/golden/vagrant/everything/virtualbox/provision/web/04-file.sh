#!/bin/sh -e
printf %s 'no end of line' | install -D -m 0644 /dev/stdin '/srv/it'"'"'s here'
chown root:root '/srv/it'"'"'s here'
