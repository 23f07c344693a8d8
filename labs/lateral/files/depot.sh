#!/bin/sh
# The depot: pages for the street, put there by deploy; and a job of root's that logs in at the vault.
set -eu
chmod 755 /srv/web
if ! id deploy >/dev/null 2>&1; then
  useradd --create-home --shell /bin/bash deploy
  install -d -m 700 -o deploy -g deploy ~deploy/.ssh
  ssh-keygen -q -t ed25519 -N '' -C deploy -f ~deploy/.ssh/id_ed25519
  install -m 600 ~deploy/.ssh/id_ed25519.pub ~deploy/.ssh/authorized_keys
  chown -R deploy:deploy ~deploy/.ssh
fi
install -d -o deploy -g deploy /srv/web/incoming
install -m 600 -o deploy -g deploy "$LABCTL_SECRETS/note" ~deploy/note.txt

# The careless copy. The checks try its key from /root/leaked, wherever else it has gone by then.
if [ ! -e /root/leaked ]; then
  install -d /srv/web/old
  tar -C /home -cf /srv/web/old/deploy.tar --exclude=note.txt deploy
  chmod 644 /srv/web/old/deploy.tar
  install -m 600 ~deploy/.ssh/id_ed25519 /root/leaked
fi

cat >/opt/ledger/askpass <<END
#!/bin/sh
# clerk at the vault
echo '$(cat "$LABCTL_SECRETS/clerk")'
END
chmod 755 /opt/ledger/askpass

systemctl daemon-reload
systemctl enable --now web.service ledger.timer
