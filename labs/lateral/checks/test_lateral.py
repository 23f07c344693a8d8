"""The lab itself, and the six tasks of its README."""

import secrets

import pytest

SSH = (
    "ssh",
    *("-o", "BatchMode=yes"),
    *("-o", "StrictHostKeyChecking=no"),
    *("-o", "UserKnownHostsFile=/dev/null"),
    *("-o", "LogLevel=ERROR"),
    *("-o", "ConnectTimeout=20"),
)

# Exit code 0: the depot does not let deploy in with the key on standard input. 8: it does. 9: nobody answers there.
WITH_LEAKED = f"""
key=$(mktemp)
trap 'rm -f "$key"' 0
cat >"$key"
ssh-keyscan -T 20 10.62.1.10 2>/dev/null | grep -q ssh-ed25519 || exit 9
with_it="-o LogLevel=VERBOSE {" ".join(SSH[1:])} -o IdentitiesOnly=yes -i $key"
said=$(ssh $with_it deploy@10.62.1.10 true 2>&1 </dev/null)
case $said in *'Authenticated to'*) exit 8 ;; esac
"""

# Exit code 0: the word on standard input is not the password of clerk, or clerk has none.
ANOTHER = """
my $hash = (getpwnam("clerk"))[1];
chomp(my $word = <STDIN>);
exit(crypt($word, $hash) eq $hash);
"""


def found(lab, name: str) -> str:
    """What the attacker has written into a file of /root's."""
    return lab.exec("attacker", ["cat", f"/root/{name}"]).stdout.decode(errors="replace").strip()


def puts_a_file(lab) -> bool:
    """Whether the desk's root, as deploy, can put a file among those of the depot."""
    name = f"check-{secrets.token_hex(4)}"
    put = f"put /etc/hostname /srv/web/incoming/{name}\n".encode()
    lab.exec("desk", ["sftp", *SSH[1:], "-b", "-", "deploy@10.62.1.10"], stdin=put)
    there = lab.exec("depot", ["cat", f"/srv/web/incoming/{name}"])
    lab.exec("depot", ["rm", "-f", f"/srv/web/incoming/{name}"])
    return there.stdout.decode().strip() == "desk"


def test_the_price_lists_are_there(machine):
    """The street sees the price lists of the depot."""
    assert "anvils" in machine("attacker").check_output("curl -fsS -m 30 http://10.62.1.10/")


def test_the_ledger_is_fetched(lab):
    """The job of the depot fetches the ledger from the vault."""
    assert ledger_comes(lab)


def ledger_comes(lab) -> bool:
    """Whether the job, run now, brings what is in the vault."""
    lab.exec("depot", ["rm", "-f", "/var/backups/ledger.csv"])
    lab.exec("depot", ["systemctl", "start", "ledger.service"], timeout=120)
    return b"anvil" in lab.exec("depot", ["cat", "/var/backups/ledger.csv"]).stdout


def test_the_depot_is_no_router(machine):
    """The kernel of the depot forwards nothing: whoever gets to the vault was let there by a program."""
    assert machine("depot").sysctl("net.ipv4.ip_forward") == 0


@pytest.mark.task(3)
def test_deploys_note_was_read(lab):
    """The note of deploy's lies on the attacker as /root/note.txt."""
    assert found(lab, "note.txt") == lab.secret("note")


@pytest.mark.task(4)
def test_the_page_of_the_vault_was_read(lab):
    """The page of the vault lies on the attacker as /root/page.html."""
    assert lab.secret("page") in found(lab, "page.html")


@pytest.mark.task(4)
def test_the_clerks_gold_was_read(lab):
    """The gold.txt of clerk's lies on the attacker as /root/gold.txt."""
    assert found(lab, "gold.txt") == lab.secret("gold")


@pytest.mark.task(3)
def test_the_leaked_key_opens_nothing(lab):
    """The leaked key no longer logs in, and root of the desk puts files there as deploy with another."""
    leaked = lab.exec("depot", ["cat", "/root/leaked"])
    assert b"PRIVATE KEY" in leaked.stdout, "/root/leaked on depot is to stay: the checks try that key"
    tried = lab.exec("attacker", ["sh", "-c", WITH_LEAKED], stdin=leaked.stdout, timeout=120)
    assert tried.code == 0, "the key logs in" if tried.code == 8 else "the SSH server of the depot is to answer"
    assert puts_a_file(lab)


@pytest.mark.task(3)
def test_deploy_is_no_way_in(lab):
    """deploy puts files at the depot, and gets neither a shell there nor any connection from there."""
    assert puts_a_file(lab)
    shell = lab.exec("desk", [*SSH, "deploy@10.62.1.10", "echo", "a", "shell"], timeout=120)
    assert b"a shell" not in shell.stdout
    page = b"GET / HTTP/1.0\r\n\r\n"
    own = lab.exec("vault", ["busybox", "nc", "-w", "10", "10.62.2.20", "80"], stdin=page)
    assert b"inner network" in own.stdout, "the vault is to show its page to the inner network"
    forward = [*SSH, "-W", "10.62.2.20:80", "deploy@10.62.1.10"]
    assert b"inner network" not in lab.exec("desk", ["timeout", "30", *forward], stdin=page).stdout


@pytest.mark.task(3)
def test_the_clerks_password_is_the_jobs_alone(lab):
    """clerk has another password, deploy can read nothing of the job's, and the job still does its work."""
    assert lab.exec("vault", ["perl", "-e", ANOTHER], stdin=lab.secret("clerk").encode()).code == 0
    readable = "find /opt/ledger -type f -readable 2>/dev/null"
    assert lab.exec("depot", ["runuser", "-u", "deploy", "--", "sh", "-c", readable]).stdout == b""
    assert ledger_comes(lab)
