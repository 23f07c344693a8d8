#!/bin/sh
# The solution: solve.sh [INSTANCE], from the folder of the lab. It does what a student would.
set -eu
lab=$(dirname "$0")/.. instance=${1:-default}

on() {
  labctl exec --instance "$instance" "$lab" "$@"
}

# 1 to 7: from what was taken to who took it, from there to the login, from the login to what was done after it
on server -- sh -ec '
  log=/var/log/nginx/access.log
  taken=$(grep "\"GET /images\.\./[^ ]* HTTP/[0-9.]*\" 200 " "$log" | head -n 1)
  address=${taken%% *}
  agent=$(echo "$taken" | cut -d\" -f6)
  file=/srv/shop/$(echo "$taken" | sed "s,.*GET /images\.\./\([^ ]*\) .*,\1,")

  journal() { journalctl --no-pager -q "$@"; }
  login=$(journal -o short-iso -t sshd | grep "Accepted password for .* from $address " | head -n 1)
  account=$(echo "$login" | sed "s/.*password for \(.*\) from .*/\1/")
  time=$(echo "$login" | sed "s/^\(....-..-..\)T\(..:..\).*/\1 \2/")
  job=$(journal -t sudo | sed -n "s,.* $account : .*COMMAND=/usr/bin/tee \(/etc/cron\.d/.*\),\1,p" | head -n 1)
  user=$(journal -t useradd | sed -n "s/.*new user: name=\([^,]*\),.*/\1/p" | tail -n 1)
  printf "%s\n" "address: $address" "agent: $agent" "file: $file" "account: $account" "time: $time" "user: $user" \
    "job: $job" | tee /root/report.txt

  # 8: first what would bring all the rest back
  program=$(sed -n "s/.* root //p" "$job")
  rm "$job" "$program"
  # 9 to 11
  pkill -KILL -u "$user" || :
  userdel --remove "$user"
  sed -i "/ $account@desk\$/!d" "/home/$account/.ssh/authorized_keys"
  printf "%s:%s\n" "$account" "$(head -c 18 /dev/urandom | base64)" | chpasswd -c SHA512
  # 12: with the slash that was missing, /images.. is no picture any more
  sed -i "s,location /images {,location /images/ {," /etc/nginx/sites-available/shop
  nginx -t -q
  systemctl reload nginx'
