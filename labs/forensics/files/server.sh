#!/bin/sh
# The shop's server before anything happens to it: logs that stay, a web shop, staff, and a job of the shop's own.
set -eu
staff='ada bruno carla dimitri elena'
secret() { cat "$LABCTL_SECRETS/$1"; }

# This image keeps its journal in memory; here it is evidence.
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\nStorage=persistent\nSystemMaxUse=64M\n' >/etc/systemd/journald.conf.d/zz-lab.conf
rm -f /etc/systemd/system/systemd-journal-flush.service # the mask
systemctl restart systemd-journald
journalctl --flush

# The file that somebody will find has another name for each student.
install -d /srv/shop/backup
{
  echo 'name,room,phone'
  for name in $staff; do echo "$name,1.0${#name},555-0${#name}"; done
} >"/srv/shop/backup/$(secret file)"
rm -f /etc/nginx/sites-enabled/default
ln -sf /etc/nginx/sites-available/shop /etc/nginx/sites-enabled/shop
systemctl reload-or-restart nginx

# All of the staff may become root with their passwords, and log in from their desks with keys. One has chosen badly.
passwords=
for name in $staff; do
  id "$name" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash --groups sudo "$name"
  install -d -m 700 -o "$name" -g "$name" "/home/$name/.ssh"
  grep " $name@desk\$" /root/desks.pub >"/home/$name/.ssh/authorized_keys"
  chown "$name:" "/home/$name/.ssh/authorized_keys"
  passwords="$passwords$name:$(head -c 18 /dev/urandom | base64)
"
done
printf '%s%s:%s\n%s:%s\n' "$passwords" elena "$(secret elena)" "$(secret account)" "$(secret weak)" |
  chpasswd -c SHA512 # not yescrypt, which takes seconds under emulation
printf 'PasswordAuthentication yes\n' >/etc/ssh/sshd_config.d/00-lab.conf
systemctl reload-or-restart ssh
