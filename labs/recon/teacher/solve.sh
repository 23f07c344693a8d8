#!/bin/sh
# The solution: solve.sh [INSTANCE], from the folder of the lab. It does what a student would.
set -eu
lab=$(dirname "$0")/.. instance=${1:-default}

labctl exec --instance "$instance" "$lab" attacker -- sh -ec '
  # An emulated machine may take its time, so an answer is waited for.
  scan() { nmap -n -Pn --min-rtt-timeout 1s "$@"; }

  # 1: every machine has an SSH server. Without -Pn nmap would leave out whoever does not answer its first questions.
  hosts=$(scan -p 22 --open -oG - 10.81.20.0/24 | sed -n "s/^Host: \([0-9.]*\) .*Ports:.*/\1/p" | xargs)
  for host in $hosts; do ping -q -c 2 -W 3 "$host" >/dev/null || quiet=$host; done

  # 2: all ports of those that have a web server
  scan -p 1-9999 --open -oG /root/scan $hosts >/dev/null
  ports() {
    sed -n "s/^Host: $1 .*Ports: //p" /root/scan | grep -o "[0-9]*/open" | cut -d/ -f1
  }
  for host in $hosts; do
    if ports "$host" | grep -qx 80; then staging=$(ports "$host" | grep -vx -e 22 -e 80); fi
  done

  # 3 and 4: what the quiet one serves beside SSH. What speaks by itself is asked by netcat, the rest by a version scan.
  for port in $(ports "$quiet" | grep -vx 22); do
    tag=$(timeout 20 nc -n -w 5 "$quiet" "$port" </dev/null | grep -ao "LAB{[a-z0-9]*}" || :)
    if [ -n "$tag" ]; then banner=$tag; else masked=$port; fi
  done
  masked="$masked $(scan -sV -p "$masked" -oG - "$quiet" | sed -n "s|.*/open/tcp//\([a-z]*\)/.*|\1|p")"

  # 5: SNMP, by the community that everybody has
  contact=$(scan -sU -p 161 --script snmp-sysdescr $hosts | grep -o "LAB{[a-z0-9]*}")

  # 6: everybody on this wire answers, whatever address they have; this machine does, too
  console=""
  own=$(ip -6 -o address show dev eth0 scope link | grep -o "fe80[0-9a-f:]*")
  for neighbour in $(ping -6 -c 3 -I eth0 ff02::1 2>/dev/null | grep -o "fe80[0-9a-f:]*%eth0" | grep -v "$own" | sort -u); do
    for port in $(scan -6 -p 1-9999 --open -oG - "$neighbour" | grep -o "[0-9]*/open" | cut -d/ -f1 | grep -vx 22); do
      tag=$(timeout 20 nc -n -w 5 "$neighbour" "$port" </dev/null | grep -ao "LAB{[a-z0-9]*}" || :)
      console=${tag:-$console}
    done
  done

  cat >/root/answers.txt <<END
hosts: $hosts
staging: $staging
banner: $banner
masked: $masked
contact: $contact
console: $console
END
  cat /root/answers.txt'
