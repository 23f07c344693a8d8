# Written by labctl from the lab's plan; replaced whenever the lab is configured.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

needed='eth0 eth1'
planned() {
  case $1 in
    02:e2:58:7a:e8:96) want=eth0 ;;
    02:5a:7d:3e:53:7f) want=eth1 ;;
    02:1f:f0:0c:91:4a) want=mgmt ;;
    *) want='' ;;
  esac
}
is_planned() {
  case $1 in eth0 | eth1 | mgmt) return 0 ;; esac
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

put 0 ipv4/ip_forward
put 0 ipv6/conf/all/forwarding
if [ -e /etc/labctl/router.nft ]; then
  nft delete table inet labctl || :
  rm -f /etc/labctl/router.nft
fi
put 1 ipv4/conf/all/arp_ignore
put 2 ipv4/conf/all/arp_announce
put 0 ipv6/conf/eth0/disable_ipv6
put 0 ipv6/conf/eth0/accept_ra
put 0 ipv6/conf/eth0/accept_dad
put 0 ipv6/conf/eth1/disable_ipv6
put 0 ipv6/conf/eth1/accept_ra
put 0 ipv6/conf/eth1/accept_dad
put 1 ipv6/conf/mgmt/disable_ipv6

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
link set dev eth0 down
addr flush dev eth0
link set dev eth0 up
addr add 10.1.0.176/24 dev eth0 brd +
addr add fd00:a::876b/64 dev eth0 nodad
link set dev eth1 down
addr flush dev eth1
link set dev eth1 up
addr add 10.3.0.36/25 dev eth1 brd +
route add 0.0.0.0/0 via 10.1.0.1 dev eth0
route add ::/0 via fd00:a::1 dev eth0
route add 10.1.0.0/24 dev eth0 src 10.1.0.176 table 100
route add 0.0.0.0/0 via 10.1.0.1 dev eth0 table 100
route add 10.3.0.0/25 via 10.1.0.50 dev eth0 table 100
route add 10.3.0.0/25 dev eth1 src 10.3.0.36 table 101
route add 0.0.0.0/0 via 10.3.0.1 dev eth1 table 101
$mgmt
END
ip -4 -batch - <<END
rule add pref 1000 from 10.1.0.176 lookup 100
rule add pref 1001 oif eth0 lookup 100
rule add pref 1002 from 10.3.0.36 lookup 101
rule add pref 1003 oif eth1 lookup 101
END
echo 'rule del pref 1000
rule del pref 1001
rule del pref 1002
rule del pref 1003' >/run/labctl-rules4
