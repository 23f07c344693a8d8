# The program for guests without python3, for any POSIX shell: dash, bash, busybox ash.
#
# It is started as `sh -c TEXT labctl MODE`. Its task comes on standard input, one line of words for each thing, and
# "-" is a word that is not there. It prints the JSON line that the Python program prints, made from
# words of its own, digits, and what others sent less all but letters and digits. It cannot put a frame on a wire or
# hear one, and says "error", with what would help, to a probe that nothing here can send the way it is to go.
#
#   probe:    device NAME MAC | gateway NAME ADDRESS | probe ID NAME FAMILY PROTOCOL ADDRESS PORT PAYLOAD
#   listen:   key KEY | seconds N | token TOKEN | door INDEX FAMILY PROTOCOL ADDRESS PORT
#   collect:  key KEY
#
# PAYLOAD is in the octal escapes of printf %b. Lines in another form are passed over.

set -u
LC_ALL=C
PATH=${PATH:-/usr/bin:/bin}:/usr/sbin:/sbin
export LC_ALL PATH
umask 022

WAIT=4    # seconds of silence that end a probe
WAVE=16   # probes at once: a program that starts late in a slow guest would be given up early
ALONE=24  # probes that are asked again by themselves, because somebody unknown refused
TABLE=97  # the table and rule of the management gateway, for the time of the probe; then a table for each NIC
USERS=61970 # numbers that no user has, one for each NIC: who sends by a NIC that no option of the program chooses

have() { command -v "$1" >/dev/null 2>&1; }

clock() { # hundredths of a second since the start of the guest
  read -r up _ </proc/uptime
  up=${up%.*}${up#*.}
}

noise() { # ICMP errors that came to this guest, less those that it made itself
  set -- 0 0
  header='' values=''
  while read -r line; do
    case $line in
      "Icmp: In"*) header=$line ;;
      "Icmp: "*) values=$line ;;
    esac
  done </proc/net/snmp
  errors_in=0 errors_out=0
  # shellcheck disable=SC2086 # words of numbers
  set -- $values
  for name in $header; do
    case $name in
      InDestUnreachs) errors_in=$1 ;;
      OutDestUnreachs) errors_out=$1 ;;
    esac
    shift
  done
  if [ -r /proc/net/snmp6 ]; then
    while read -r name value; do
      case $name in
        Icmp6InDestUnreachs) errors_in=$((errors_in + value)) ;;
        Icmp6OutDestUnreachs) errors_out=$((errors_out + value)) ;;
      esac
    done </proc/net/snmp6
  fi
  errors=$((errors_in - errors_out))
}

actual() { # what this guest calls a planned NIC: the name in $nic
  nic=$1
  for known in $nics; do
    if [ "${known%%=*}" = "$1" ]; then nic=${known#*=}; fi
  done
}

find_nic() { # a planned NIC by its name and MAC address
  found=$1
  for there in /sys/class/net/*; do
    read -r mac <"$there/address" || continue
    if [ "$mac" = "$2" ]; then found=${there##*/}; fi
  done 2>/dev/null
  mac='' carrier=0
  read -r mac <"/sys/class/net/$1/address" && [ "$mac" = "$2" ] && found=$1
  read -r mac <"/sys/class/net/$found/address"
  read -r carrier <"/sys/class/net/$found/carrier"
  state=down
  if [ "$mac" = "$2" ] && [ "$carrier" = 1 ]; then state=up; fi
  nics="$nics $1=$found"
  links="$links,\"$1\":\"$state\""
} 2>/dev/null

# --- what this guest has ---

look_around() { # the tools, best first: $tcp, $udp, $echo
  tcp='' udp='' echo='' users=''
  help=$(nc -h 2>&1 </dev/null)
  case $help in
    *BusyBox*"-e PROG"*) tcp=busybox ;;
    *OpenBSD*) tcp=openbsd ;;
  esac
  if have bash && bash -c 'exec 3<>/dev/udp/127.0.0.1/9' 2>/dev/null; then tcp=bash udp=bash; fi
  if have socat; then tcp=socat udp=socat; fi
  if have ping; then
    echo=blind # it prints nothing about an ICMP error
    case $(ping -V 2>&1 </dev/null) in *iputils*) echo=iputils ;; esac
  fi
  timeout 5 true 2>/dev/null || tcp='' udp='' echo=''
  if [ "$tcp" != busybox ] && have setpriv && setpriv --reuid="$USERS" --clear-groups true 2>/dev/null; then users=setpriv; fi
}

rule() { # ip rule, of both families
  ip -4 rule "$@" 2>/dev/null && { ip -6 rule "$@" 2>/dev/null || true; }
}

open_gateway() { # what is bound to the management NIC goes through its gateway
  routed=''
  [ -n "$gateway" ] || return 0
  ip route replace default via "$gateway" dev "$gate" onlink table "$TABLE" 2>/dev/null || return 0
  undo="$undo $TABLE"
  if rule add pref "$TABLE" oif "$gate" lookup "$TABLE"; then routed=yes; fi
}

next_hop() { # how this guest sends to $address: $by, $via; words after the address choose the NIC
  by='' via='' kept="$dir/g.$*"
  if [ -r "$kept" ]; then
    read -r by via <"$kept"
    return 0
  fi
  said=$(ip "-$family" route get "$@" 2>&1) || case $said in
    *nreachable*) by=nowhere ;;
  esac
  if [ -n "$by" ]; then
    echo "$by" >"$kept"
    return 0
  fi
  last=''
  for word in $said; do
    case $last in
      dev) by=$word ;;
      via) via=$word ;;
    esac
    last=$word
  done
  echo "$by $via" >"$kept"
}

choose_way() { # how a program that cannot choose a NIC gets to use $nic: $as is the user to run it as; $no is why not
  as='' no=''
  [ "$nic" != - ] || return 0
  if [ "$protocol" != icmp ] && [ "$tcp" != socat ]; then
    next_hop "$address"
    if [ "$by" = "$nic" ] && { [ "$nic" != "$gate" ] || [ -z "$via" ]; }; then return 0; fi
    if [ "$nic" = "$gate" ] && [ -z "$routed" ]; then
      no="cannot route through the management gateway"
    elif [ -z "$users" ]; then
      if [ "$by" = nowhere ]; then no=nowhere; else no="would send it by another NIC (python3 or socat could choose)"; fi
    else
      by_user
    fi
  elif [ "$nic" = "$gate" ] && [ -z "$routed" ]; then
    next_hop "$address"
    if [ "$by" != "$nic" ] || [ -n "$via" ]; then no="cannot route through the management gateway"; fi
  fi
}

by_user() { # a user of its own for each NIC, whose packets look up a table of its own
  number=0
  for known in $nics; do
    number=$((number + 1))
    if [ "${known#*=}" = "$nic" ]; then break; fi
  done
  table=$((TABLE + number)) as=$((USERS + number))
  case " $undo " in
    *" $table "*) ;;
    *)
      undo="$undo $table"
      rule add pref "$TABLE" uidrange "$as-$as" lookup "$table" || no="cannot route by NIC"
      ;;
  esac
  if [ -e "$dir/t.$nic.$address" ]; then return 0; fi
  if [ "$nic" = "$gate" ]; then
    via=$gateway
  else
    next_hop "$address" oif "$nic"
  fi
  # shellcheck disable=SC2086 # "via ADDRESS" is two words or none
  ip "-$family" route replace "$address" ${via:+via $via} dev "$nic" ${via:+onlink} table "$table" 2>/dev/null || no="cannot route by NIC"
  [ -n "$no" ] || : >"$dir/t.$nic.$address"
}

forget() { # the rules and tables of this program
  for known in 4 6; do
    while ip "-$known" rule del pref "$TABLE"; do :; done
    for number in $undo; do ip "-$known" route flush table "$number"; done
  done
} 2>/dev/null

restore() { # leave this guest as it was
  forget
  if [ -r "$dir/filters" ]; then
    while read -r file value; do echo "$value" >"$file"; done <"$dir/filters"
  fi
  rm -rf "$dir"
}

relax() { # the reverse path filter drops answers of a leak, which would look like silence
  for file in /proc/sys/net/ipv4/conf/*/rp_filter; do
    read -r value <"$file" || continue
    if [ "$value" != 0 ] && echo 0 >"$file"; then echo "$file $value" >>"$dir/filters"; fi
  done
} 2>/dev/null

# --- one probe; each sets $seen, $details and leaves what it heard in $dir/h.ID ---

words() { # what the words of a program mean
  case $1 in
    *"onnection refused"*) seen=refused details=ECONNREFUSED ;;
    *"etwork is unreachable"* | *"etwork unreachable"* | *"o route to host"* | *"ost is unreachable"* | *"assign requested"*)
      seen=unreachable details="no route to host" ;;
    *"o such device"*) seen=error details="no such NIC" ;;
    *"ermission denied"* | *"not permitted"*) seen=error details="not permitted" ;;
  esac
}

ask_icmp() {
  if [ "$echo" = iputils ]; then set -- -n -c 1; else set -- -c 3; fi # until it is answered; so many, whatever comes
  [ "$nic" = - ] || set -- "$@" -I "$nic"
  said=$(timeout 20 ping "-$family" -w "$patience" -W "$patience" "$@" "$address" 2>&1 </dev/null)
  late=$?
  case $said in
    *DIFFERENT*) seen=error details="somebody else answered" ;;
    *"bytes from "*) seen=answered details="echo reply" ;;
    *"From $address "* | *"From $address:"*) seen=refused details="ICMP error of the target" known=yes ;;
    *"rom "*icmp_seq*)
      offender=${said#*rom }
      offender=${offender%% *}
      seen=prohibited details="ICMP error from ${offender%%[!0-9a-fA-F.:]*}" known=yes
      if ip addr 2>/dev/null | grep -q " ${offender%%[!0-9a-fA-F.:]*}/"; then seen=no-route; fi
      ;;
    *"packets transmitted"*) seen=silence ;;
    *) words "$said" ;;
  esac
  if [ "$seen" = silence ] && [ "$echo" = blind ]; then seen=quiet; fi
  [ -n "$seen" ] || details="ping ended with status $late"
}

place() { # an address as socat wants it
  if [ "$family" = 6 ]; then printf '%s6:[%s]:%s' "$1" "$address" "$port"; else printf '%s4:%s:%s' "$1" "$address" "$port"; fi
  [ "$nic" = - ] || printf ',so-bindtodevice=%s' "$nic"
}

ask_tcp_socat() {
  linger=$WAIT
  [ -s "$dir/p.$id" ] || linger=0
  said=$(timeout 20 socat -d -d -t "$linger" - "$(place TCP),connect-timeout=$WAIT" <"$dir/p.$id" 2>&1 >"$dir/h.$id")
  late=$?
  case $said in
    *"successfully connected"* | *"starting data transfer"*) seen=answered details=connected ;;
    *"imed out"*) seen=silence ;;
    *) words "$said" ;;
  esac
}

ask_udp_socat() {
  for again in 1 1 "$WAIT"; do
    cat "$dir/p.$id"
    sleep "$again"
  done | timeout 20 socat -t 1 - "$(place UDP)" 2>"$dir/e.$id" | dd bs=512 count=1 >"$dir/h.$id" 2>/dev/null # the first answer
  said=$(cat "$dir/e.$id")
  if [ -s "$dir/h.$id" ]; then
    seen=answered details="an answer"
  elif [ -z "$said" ]; then
    seen=silence
  else
    words "$said"
  fi
}

# The time that a connection gets is counted from the moment at which it is tried, not from the start of bash.
# shellcheck disable=SC2016 # it is for bash to expand
BASH_TCP='read -r begin _ </proc/uptime
echo "begin ${begin/./}"
{ sleep "$4"; kill "$$"; } >/dev/null 2>&1 4>&- &
exec 3<>"/dev/tcp/$1/$2" || exit 1
kill "$!"
echo connected
if [ -s "$3" ]; then cat "$3" >&3; timeout "$4" dd bs=64 count=1 <&3 >&4 2>/dev/null; fi'
# shellcheck disable=SC2016
BASH_UDP='exec 3<>"/dev/udp/$1/$2" || exit 1
{ for again in 1 2 3; do cat "$3" >&3; sleep 1; done; } &
timeout "$4" dd bs=512 count=1 <&3 >&4
echo ended'

as_user() { # run a program as the user whose packets go by the NIC
  if [ -n "$as" ]; then setpriv --reuid="$as" --clear-groups "$@"; else "$@"; fi
}

ask_tcp_bash() {
  said=$(as_user timeout 30 bash -c "$BASH_TCP" labctl "$address" "$port" "$dir/p.$id" "$WAIT" 2>&1 4>"$dir/h.$id" </dev/null)
  clock
  case $said in
    *connected*) seen=answered details=connected ;;
    *) words "$said" ;;
  esac
  if [ -z "$seen" ]; then
    begin=${said#*begin }
    begin=${begin%%[!0-9]*}
    if [ -n "$begin" ] && [ $((up - begin)) -ge $((WAIT * 75)) ]; then seen=silence; else details="this guest was too slow"; fi
  fi
}

ask_udp_bash() {
  said=$(as_user timeout 20 bash -c "$BASH_UDP" labctl "$address" "$port" "$dir/p.$id" "$WAIT" 2>&1 4>"$dir/h.$id" </dev/null)
  if [ -s "$dir/h.$id" ]; then
    seen=answered details="an answer"
  else
    words "$said"
    case $seen$said in *ended) seen=${seen:-silence} ;; esac
  fi
}

# Started by nc once a connection is there, on the connection.
HELLO='echo connected >"$LABCTL_HEARD.on"
if [ -s "$LABCTL_SAY" ]; then cat "$LABCTL_SAY"; timeout 4 dd bs=64 count=1 >"$LABCTL_HEARD" 2>/dev/null; fi'

ask_tcp_busybox() {
  said=$(LABCTL_HEARD=$dir/h.$id LABCTL_SAY=$dir/p.$id timeout 20 nc -w "$WAIT" "$address" "$port" -e sh "$dir/hello" 2>&1 </dev/null)
  if [ -e "$dir/h.$id.on" ]; then
    seen=answered details=connected
  else
    words "$said"
    case $seen$said in *"timed out"*) seen=silence ;; esac
  fi
}

ask_tcp_openbsd() {
  if [ -s "$dir/p.$id" ]; then set --; else set -- -z; fi
  said=$(as_user timeout 20 nc -n -v -w "$WAIT" "$@" "$address" "$port" <"$dir/p.$id" 2>&1 >"$dir/h.$id")
  case $said in
    *succeeded*) seen=answered details=connected ;;
    *"imed out"*) seen=silence ;;
    *) words "$said" ;;
  esac
}

ask() { # the probe in $id $nic $family $protocol $address $port: what came of it goes to $dir/r.ID
  clock
  began=$up seen='' details='' known='' tool=''
  case $protocol in
    icmp) tool=${echo:+icmp} ;;
    tcp) tool=${tcp:+tcp_$tcp} ;;
    udp) tool=${udp:+udp_$udp} ;;
  esac
  if [ -z "$tool" ]; then
    case $protocol in
      icmp) others=iputils-ping ;;
      *) others="socat or bash" ;;
    esac
    details="it has no python3, and nothing else that sends $protocol (python3, $others would)"
  elif [ "$no" = nowhere ]; then
    seen=no-route details="no route to host"
  elif [ -n "$no" ]; then
    details="it $no"
  else
    "ask_$tool"
  fi
  clock
  [ -n "$seen$details" ] || details="its program for $protocol failed"
  echo "${seen:-error} $(((up - began) * 10)) ${known:--} $details" >"$dir/r.$id"
}

settle() { # judge what a wave left open, once it is known whether somebody sent ICMP errors meanwhile
  read -r seen took known details <"$dir/r.$id"
  case $seen$known in
    refused- | unreachable-)
      if [ "$errors" -gt 0 ] && [ "$nic" != - ] && ! nowhere_to_go; then
        alone=$((alone + 1))
        if [ "$alone" -gt "$ALONE" ]; then
          seen=error details="ICMP errors came, and nothing here tells from whom"
        else
          again
        fi
      fi
      ;;
    quiet-)
      if [ "$errors" -gt 0 ]; then
        alone=$((alone + 1))
        noise
        before=$errors
        patience=2 # it was silent for longer already: an error comes at once
        [ "$alone" -gt "$ALONE" ] || ask_icmp
        patience=$WAIT
        noise
        if [ "$alone" -gt "$ALONE" ] || [ "$errors" -gt "$before" ]; then
          seen=error details="an ICMP error came, and this ping does not tell from whom (python3 or iputils-ping would)"
        fi
        errors=1
      fi
      ;;
  esac
  if [ "$seen" = unreachable ]; then seen=no-route; fi
  if [ "$seen" = quiet ]; then seen=silence; fi
  echo "$seen $took - $details" >"$dir/r.$id"
}

nowhere_to_go() { # whether the first router says that it has no route to $address, whoever asks: it got no further
  [ "$echo" = iputils ] || return 1
  kept="$dir/n.$nic.$address"
  if [ ! -e "$kept" ]; then
    timeout 20 ping "-$family" -n -t 1 -c 1 -w 2 -I "$nic" "$address" >"$kept" 2>&1 </dev/null
  fi
  said=$(cat "$kept")
  case $said in
    *"From $address "*) return 1 ;;
    *"From "*" Destination Net Unreachable"* | *"From "*" Destination unreachable: No route"*)
      offender=${said#*From }
      offender=${offender%% *}
      seen=prohibited details="no route at ${offender%%[!0-9a-fA-F.:]*}"
      ;;
    *) return 1 ;;
  esac
}

again() { # ask once more, and nothing else meanwhile
  wave_errors=$errors
  noise
  before=$errors
  rm -f "$dir/h.$id"
  ask
  noise
  read -r seen took known details <"$dir/r.$id"
  case $seen in
    refused | unreachable)
      if [ "$errors" -gt "$before" ]; then seen=error details="an ICMP error said no, and nothing here tells whose"; fi
      ;;
  esac
  errors=$wave_errors
}

wave() { # ask what is in a file, all at once
  noise
  before=$errors
  while read -r id nic family protocol address port; do
    choose_way
    echo "${as:--} $no" >"$dir/w.$id"
    ask </dev/null >/dev/null 2>&1 &
  done <"$1"
  wait
  noise
  errors=$((errors - before))
  while read -r id nic family protocol address port; do
    read -r as no <"$dir/w.$id"
    if [ "$as" = - ]; then as=''; fi
    settle </dev/null
  done <"$1"
}

waves() { # ask what is in a file, some at a time
  [ -s "$1" ] || return 0
  size=0
  while read -r spec; do
    echo "$spec" >>"$dir/wave"
    size=$((size + 1))
    if [ "$size" -ge "$WAVE" ]; then
      wave "$dir/wave"
      rm -f "$dir/wave"
      size=0
    fi
  done <"$1"
  if [ -e "$dir/wave" ]; then wave "$dir/wave"; fi
  rm -f "$dir/wave"
}

probe() {
  dir=$(mktemp -d) || exit 1
  chmod 755 "$dir"
  undo='' nics='' links='' gateway='' gate='' alone=0 patience=$WAIT
  trap restore EXIT
  trap 'exit 1' HUP INT TERM
  printf '%s\n' "$HELLO" >"$dir/hello"
  while read -r what first second family protocol address port payload; do
    case $what in
      device) find_nic "$first" "$second" ;;
      gateway)
        actual "$first"
        gate=$nic gateway=$second
        ;;
      probe)
        nic=-
        [ "$second" = - ] || actual "$second"
        phase=packets
        if [ "$protocol" = icmp ]; then phase=echoes; fi
        if [ "$nic" = - ]; then phase=own; fi
        echo "$first $nic $family $protocol $address $port" >>"$dir/$phase"
        echo "$first" >>"$dir/all"
        if [ "$payload" = - ]; then payload=''; fi
        printf '%b' "$payload" >"$dir/p.$first"
        ;;
    esac
  done
  look_around
  relax
  forget # what is left of one that was killed
  open_gateway
  for phase in own echoes packets; do waves "$dir/$phase"; done
  printf '{"results":['
  comma=''
  if [ -s "$dir/all" ]; then
    while read -r id; do
      seen=error took=0 details="nothing became of it"
      if [ -r "$dir/r.$id" ]; then read -r seen took _ details <"$dir/r.$id"; fi
      proof=''
      if [ -s "$dir/h.$id" ]; then proof=$(tr -cd 'A-Za-z0-9' <"$dir/h.$id" | dd bs=64 count=1 2>/dev/null); fi
      printf '%s[%s,"%s","%s",%s,"%s"]' "$comma" "$id" "$seen" "$details" "$took" "$proof"
      comma=,
    done <"$dir/all"
  fi
  printf '],"links":{%s}}\n' "${links#,}"
}

# --- listeners ---

# Answers one connection or datagram, on its standard input and output.
# shellcheck disable=SC2016 # it is for that shell to expand
ANSWER='cat "${0%/*}/token"
dd bs=512 count=1 2>/dev/null >>"${0%/*}/in.$$"'

listens() { # whether anybody listens at $port by $protocol
  hex=$(printf '%04X' "$port")
  state=0A
  if [ "$protocol" = udp ]; then state=07; fi
  for table in "/proc/net/$protocol" "/proc/net/${protocol}6"; do
    [ -r "$table" ] || continue
    while read -r _ local _ st _; do
      if [ "${local##*:}" = "$hex" ] && [ "$st" = "$state" ]; then return 0; fi
    done <"$table"
  done
  return 1
}

open_door() {
  if [ "$tcp" = socat ]; then
    if [ "$family" = 6 ]; then options="[$address],ipv6only=1"; else options=$address; fi
    case $protocol in
      tcp) kind=TCP$family-LISTEN ;;
      *) kind=UDP$family-RECVFROM ;;
    esac
    detached socat -T5 "$kind:$port,bind=$options,reuseaddr,fork" "EXEC:sh $dir/answer"
  elif [ "$protocol" = tcp ] && [ "$tcp" = busybox ]; then
    case " $started " in
      *" $port "*) ;;
      *) detached nc -ll -p "$port" -e sh "$dir/answer" ;;
    esac
    started="$started $port"
  fi
}

# Ends the listeners where nobody comes to collect.
# shellcheck disable=SC2016
EXPIRE='sleep "$2"
while read -r pid; do
  if [ "$pid" != $$ ] && grep -q -s "$1" "/proc/$pid/cmdline"; then kill "$pid"; fi
done <"$1/pids"
rm -rf "$1"'

detached() {
  if have setsid; then set -- setsid "$@"; fi
  "$@" </dev/null >/dev/null 2>&1 &
  echo $! >>"$dir/pids"
}

stop() { # end the listeners of this guest, those that are still ours
  [ -r "$dir/pids" ] || return 0
  while read -r pid; do
    if grep -q -s "$dir" "/proc/$pid/cmdline"; then kill -- "-$pid" || kill "$pid"; fi
  done <"$dir/pids"
} 2>/dev/null

listen() {
  seconds=60 started='' opened=''
  while read -r what first family protocol address port; do
    case $what in
      key)
        dir=/run/labctl-verify-$first
        [ -w /run ] || dir=/tmp/labctl-verify-$first
        stop
        rm -rf "$dir"
        mkdir -m 755 "$dir" || exit 1
        printf '%s\n' "$ANSWER" >"$dir/answer"
        ;;
      seconds) seconds=$first ;;
      token) printf '%s' "$first" >"$dir/token" ;;
      door)
        if listens; then how=taken; else how=open; fi
        echo "$first $family $protocol $address $port $how" >>"$dir/doors"
        ;;
    esac
  done
  if [ -s "$dir/doors" ]; then
    while read -r _ family protocol address port how; do
      [ "$how" = taken ] || open_door
    done <"$dir/doors"
  fi
  detached sh -c "$EXPIRE" labctl "$dir" "$seconds"
  comma=''
  printf '{"opened":['
  if [ -s "$dir/doors" ]; then
    tries=0
    while read -r index _ protocol _ port how; do
      until listens || [ "$tries" -ge 5 ] || { [ -z "$listener" ] && [ "$how" = open ]; }; do
        tries=$((tries + 1))
        sleep 1
      done
      listens || how="no tool for it (python3 or socat would do)"
      printf '%s[%s,"%s"]' "$comma" "$index" "$how"
      comma=,
    done <"$dir/doors"
  fi
  printf ']}\n'
}

collect() {
  read -r _ first
  dir=/run/labctl-verify-$first
  [ -d "$dir" ] || dir=/tmp/labctl-verify-$first
  stop
  comma=''
  printf '{"arrived":['
  cat "$dir"/in.* 2>/dev/null | tr -c 'a-z0-9-' '\n' | sed -n 's/^labctl-probe-\([0-9a-f]\{16\}\).*/\1/p' | sort -u | head -n 20000 |
    while read -r nonce; do
      printf '%s"%s"' "$comma" "$nonce"
      comma=,
    done
  printf '],"wires":[]}\n'
  rm -rf "$dir"
}

case $1 in
  probe) probe ;;
  listen)
    look_around
    listener=''
    case $tcp in socat | busybox) listener=$tcp ;; esac
    listen
    ;;
  collect) collect ;;
esac
