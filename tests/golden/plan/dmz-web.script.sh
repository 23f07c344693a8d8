. /etc/labctl/network.sh
printf '%s\n' web >/proc/sys/kernel/hostname
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

need_group adm
if ! account admin; then
  useradd -m -s /bin/bash -G adm -- admin
  echo admin >>/etc/labctl/accounts
else
  if [ "$shell" != /bin/bash ]; then usermod -s /bin/bash -- admin; fi
  usermod -a -G adm -- admin
fi
chpasswd -c SHA512 </etc/labctl/passwords
rm -f /etc/labctl/passwords
if [ -e /etc/labctl/accounts ]; then
  kept=''
  while read -r name; do
    case $name in
      '' | admin) kept="$kept$name
" ;;
      *) if account "$name"; then userdel -- "$name" || usermod -L -e 1 -- "$name"; fi ;;
    esac
  done </etc/labctl/accounts
  printf '%s' "$kept" >/etc/labctl/accounts
fi
sshd_runs() {
  for comm in /proc/[0-9]*/comm; do
    if read -r name 2>/dev/null <"$comm" && [ "$name" = sshd ]; then return 0; fi
  done
  return 1
}
sshd_listens() {
  tries=100
  until [ -s /run/sshd.pid ] || [ "$tries" = 0 ]; do sleep 0.1; tries=$((tries - 1)); done
  [ -s /run/sshd.pid ]
}
known=''
if [ -e /run/labctl-host-key ]; then read -r known </run/labctl-host-key; fi
if [ "$known" != efa1f375d76194fa51a3556a97e641e61685f914d446979da50a551a4333ffd7 ] && sshd_runs && sshd_listens; then
  read -r pid </run/sshd.pid && rm -f /run/sshd.pid
  kill -HUP "$pid" && sshd_listens || :
fi
echo efa1f375d76194fa51a3556a97e641e61685f914d446979da50a551a4333ffd7 >/run/labctl-host-key
