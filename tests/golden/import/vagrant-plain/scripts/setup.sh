#!/bin/sh
echo "$@" >/etc/motd
