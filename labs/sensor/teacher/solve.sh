#!/bin/sh
# The solution: solve.sh [INSTANCE], from the folder of the lab. It does what a student would.
set -eu
lab=$(dirname "$0")/.. instance=${1:-default}

on() {
  labctl exec --instance "$instance" "$lab" "$@"
}

# 1 and 2: a login, and what is in it
on sensor -- sh -ec '
  nic=$(ls /sys/class/net | grep -xE "eth0|lab0" | tail -n 1)
  timeout 60 tcpdump -nn -i "$nic" -w /root/login.pcap host 10.55.0.20 || [ $? = 124 ]
  login=$(tcpdump -nn -A -r /root/login.pcap tcp port 80 2>/dev/null | grep -o "user=[a-z]*&password=[A-Za-z0-9]*" | head -n 1)
  user=${login%%&*}
  printf "user = %s\npassword = %s\n" "${user#user=}" "${login##*=}" >/root/answers.txt'

# 3 and 4: whom does the desk call, and when? What is punctual is the beacon.
on sensor -- python3 -c '
import collections, statistics, subprocess
syn = "src 10.55.0.20 and tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn"
read = ["tcpdump", "-nn", "-tt", "-r", "/root/login.pcap", syn]
calls, sources = collections.defaultdict(list), set()
for line in subprocess.run(read, capture_output=True, text=True, check=True).stdout.splitlines():
    at, _, source, _, target, *_ = line.split()
    if source not in sources:  # else it was sent again, because nobody answered in time
        calls[target.rstrip(":")].append(float(at))
    sources.add(source)
def unpunctual(times):
    gaps = [after - before for before, after in zip(times, times[1:])]
    return statistics.pstdev(gaps)
target = min((target for target, times in calls.items() if len(times) > 3), key=lambda name: unpunctual(calls[name]))
times = calls[target]
address, _, port = target.rpartition(".")
with open("/root/answers.txt", "a") as answers:
    print(f"beacon = {address}:{port}", file=answers)
    print("period =", round((times[-1] - times[0]) / (len(times) - 1)), file=answers)'

# 5 and 6: what all beacons have, and nothing else
on sensor -- sh -ec '
  beacon=$(sed -n "s/^beacon = //p" /root/answers.txt)
  cat >/etc/suricata/rules/local.rules <<RULE
alert tcp any any -> ${beacon%:*} ${beacon#*:} (msg:"the beacon of the desk"; flow:established,to_server; content:"POLL id="; startswith; content:" seq="; distance:8; within:5; sid:1000001; rev:1;)
RULE
  suricatasc -c reload-rules'
