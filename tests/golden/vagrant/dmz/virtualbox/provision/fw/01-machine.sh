#!/bin/sh -e
install -D -m 0644 /dev/stdin /etc/hostname <<'END'
fw
END
chown root:root /etc/hostname
install -D -m 0644 /dev/stdin /etc/hosts <<'END'
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
203.0.113.1 fw
203.0.113.66 attacker
198.51.100.5 web
10.10.10.230 office-1
fd00:10::9d19 office-1
10.10.10.61 office-2
fd00:10::8f82 office-2
END
chown root:root /etc/hosts
install -D -m 0444 /dev/stdin /etc/machine-id <<'END'
341d810cd31f507dab20535a12995351
END
chown root:root /etc/machine-id
install -D -m 0644 /dev/stdin /etc/labctl/network.sh <<'END_'
management=''
for path in /sys/class/net/*; do
  if read -r mac <"$path/address" && [ "$mac" = 02:77:2b:ce:88:dd ]; then management=${path##*/}; fi
done
[ -z "$management" ] || sed -i "s/\"mgmt\"/\"$management\"/" /etc/labctl/router.nft
# Written by labctl from the lab's plan; replaced whenever the lab is configured.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

needed='lab0 lab1 lab2'
planned() {
  case $1 in
    02:76:93:ac:c9:9f) want=lab0 ;;
    02:ea:4c:8d:2f:68) want=lab1 ;;
    02:16:5d:f7:4e:42) want=lab2 ;;
    none) want=mgmt ;;
    *) want='' ;;
  esac
}
is_planned() {
  case $1 in lab0 | lab1 | lab2 | mgmt) return 0 ;; esac
  return 1
}

# Gives every NIC its planned name, in two steps, so that two may swap theirs. A device on top of others, such as a
# bridge or a VLAN, may have the MAC of one of them and is none of ours.
name_nics() {
  moves='' seen=' '
  for path in /sys/class/net/*; do
    nic=${path##*/}
    set -- "$path"/lower_*
    if [ -e "$1" ] || ! read -r mac <"$path/address"; then continue; fi
    planned "$mac"
    if [ -n "$want" ]; then seen="$seen$want "; fi
    if [ -z "$want" ] && is_planned "$nic"; then want=x$nic; fi
    if [ -n "$want" ] && [ "$want" != "$nic" ]; then moves="$moves $nic:$want"; fi
  done
  [ -n "$moves" ] || return 0
  number=0 first='' second=''
  for move in $moves; do
    number=$((number + 1))
    first="${first}link set dev ${move%%:*} down
link set dev ${move%%:*} name labctl$number
"
    second="${second}link set dev labctl$number name ${move#*:}
"
  done
  ip -batch - <<END
$first$second
END
}

# NICs may appear a moment after this starts. That of the management path is missing in a sealed lab.
tries=50
while :; do
  name_nics
  missing=''
  for nic in $needed; do
    case $seen in *" $nic "*) ;; *) missing="$missing $nic" ;; esac
  done
  [ -n "$missing" ] || break
  tries=$((tries - 1))
  if [ "$tries" = 0 ]; then
    echo "labctl: these planned NICs are not there:$missing" >&2
    exit 1
  fi
  sleep 0.2
done

# A setting that the kernel does not have is not needed.
put() {
  if [ -e "/proc/sys/net/$2" ]; then echo "$1" >"/proc/sys/net/$2"; fi
}

nft -f /etc/labctl/router.nft
put 1 ipv4/conf/all/arp_ignore
put 2 ipv4/conf/all/arp_announce
put 0 ipv6/conf/lab0/disable_ipv6
put 0 ipv6/conf/lab0/accept_ra
put 0 ipv6/conf/lab0/accept_dad
put 1 ipv4/conf/lab0/rp_filter
put 0 ipv4/conf/lab0/send_redirects
put 0 ipv6/conf/lab1/disable_ipv6
put 0 ipv6/conf/lab1/accept_ra
put 0 ipv6/conf/lab1/accept_dad
put 1 ipv4/conf/lab1/rp_filter
put 0 ipv4/conf/lab1/send_redirects
put 0 ipv6/conf/lab2/disable_ipv6
put 0 ipv6/conf/lab2/accept_ra
put 0 ipv6/conf/lab2/accept_dad
put 1 ipv4/conf/lab2/rp_filter
put 0 ipv4/conf/lab2/send_redirects
put 1 ipv6/conf/mgmt/disable_ipv6
put 1 ipv4/conf/all/rp_filter
put 0 ipv4/conf/all/send_redirects

if [ -e /run/labctl-rules4 ]; then
  ip -4 -force -batch /run/labctl-rules4 || :
  rm -f /run/labctl-rules4
fi
if [ -e /run/labctl-rules6 ]; then
  ip -6 -force -batch /run/labctl-rules6 || :
  rm -f /run/labctl-rules6
fi
mgmt=''
case $seen in *" mgmt "*)
  mgmt='link set dev mgmt down
addr flush dev mgmt
link set dev mgmt up
addr add 10.0.2.15/24 dev mgmt brd +'
esac
ip -batch - <<END
link set dev lab0 down
addr flush dev lab0
link set dev lab0 up
addr add 203.0.113.1/24 dev lab0 brd +
link set dev lab1 down
addr flush dev lab1
link set dev lab1 up
addr add 198.51.100.1/28 dev lab1 brd +
link set dev lab2 down
addr flush dev lab2
link set dev lab2 up
addr add 10.10.10.1/24 dev lab2 brd +
addr add fd00:10::1/64 dev lab2 nodad
$mgmt
END
put 1 ipv4/ip_forward
put 1 ipv6/conf/all/forwarding
if [ -n "$management" ]; then put 1 "ipv6/conf/$management/disable_ipv6"; fi
ip -4 -batch - <<END
route replace unreachable default metric 4096 table 4000
route replace unreachable default metric 1 table 4000
route replace unreachable 10.0.2.3/32
END
if [ -z "$(ip -4 rule show pref 30001)" ]; then
ip -4 -batch - <<END
rule add pref 30000 lookup main suppress_prefixlength 0
rule add pref 30001 lookup 4000
END
fi
if [ -e /proc/sys/net/ipv6 ]; then
ip -6 -batch - <<END
route replace unreachable default metric 4096 table 4000
route replace unreachable default metric 1 table 4000
END
if [ -z "$(ip -6 rule show pref 30001)" ]; then
ip -6 -batch - <<END
rule add pref 30000 lookup main suppress_prefixlength 0
rule add pref 30001 lookup 4000
END
fi
fi
END_
chown root:root /etc/labctl/network.sh
install -D -m 0644 /dev/stdin /etc/systemd/system/labctl-network.service <<'END'
[Unit]
Description=Network of this machine as labctl planned it
Wants=network.target
Before=network.target ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh /etc/labctl/network.sh

[Install]
WantedBy=multi-user.target
END
chown root:root /etc/systemd/system/labctl-network.service
install -D -m 0644 /dev/stdin /etc/labctl/router.nft <<'END'
# Written by labctl from the lab's policy; replaced whenever the lab is configured.
table inet labctl
delete table inet labctl
table inet labctl {
	chain antispoof {
		type filter hook prerouting priority raw; policy accept;
		ip6 saddr != { ::, fe80::/10 } fib saddr . iif oif missing drop
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state invalid drop
		ct state established,related accept
		iifname "lab0" oifname "lab1" ip saddr 203.0.113.0/24 ip daddr 198.51.100.5 tcp dport 80 accept
		iifname "lab0" oifname "lab1" ip saddr 203.0.113.0/24 ip daddr 198.51.100.5 tcp dport 443 accept
		iifname "lab2" oifname "lab1" ip saddr 10.10.10.0/24 ip daddr 198.51.100.5 tcp dport 80 accept
	}
	chain input {
		type filter hook input priority filter; policy drop;
		iifname "lo" accept
		ct state invalid drop
		ct state established,related accept
		iifname "mgmt" tcp dport 22 accept
		iifname "mgmt" drop
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept
		iifname "lab0" ip daddr 203.0.113.1 accept
		iifname "lab0" ip daddr 203.0.113.255 accept
		iifname "lab1" ip daddr 198.51.100.1 accept
		iifname "lab1" ip daddr 198.51.100.15 accept
		iifname "lab2" ip daddr 10.10.10.1 accept
		iifname "lab2" ip6 daddr fd00:10::1 accept
		iifname "lab2" ip daddr 10.10.10.255 accept
		ip daddr { 224.0.0.0/4, 255.255.255.255 } accept
		ip6 daddr { fe80::/10, ff00::/8 } accept
	}
}
END
chown root:root /etc/labctl/router.nft
. /etc/labctl/network.sh
printf '%s\n' fw >/proc/sys/kernel/hostname
[ -e /etc/systemd/system/multi-user.target.wants/labctl-network.service ] || ln -s /etc/systemd/system/labctl-network.service /etc/systemd/system/multi-user.target.wants/labctl-network.service
# Sets uid, gid, home and shell of an account; fails where it does not exist.
account() {
  while IFS=: read -r name _ uid gid _ home shell; do
    if [ "$name" = "$1" ]; then return 0; fi
  done </etc/passwd
  return 1
}
need_group() {
  while IFS=: read -r name _; do
    if [ "$name" = "$1" ]; then return 0; fi
  done </etc/group
  groupadd -- "$1"
}
install_keys() {
  account "$1"
  install -d -m 0700 -o "$uid" -g "$gid" "$home/.ssh"
  install -m 0600 -o "$uid" -g "$gid" "$2" "$home/.ssh/authorized_keys"
}

[ ! -e /etc/sudoers.d/labctl ] || rm -f /etc/sudoers.d/labctl
if [ -e /etc/labctl/accounts ]; then
  kept=''
  while read -r name; do
    case $name in
      '') kept="$kept$name
" ;;
      *) if account "$name"; then userdel -- "$name" || usermod -L -e 1 -- "$name"; fi ;;
    esac
  done </etc/labctl/accounts
  printf '%s' "$kept" >/etc/labctl/accounts
fi
