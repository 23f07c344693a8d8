"""The lab itself, and the four tasks of its README."""

from pathlib import Path

import pytest

WORDS = (Path(__file__).parent.parent / "files" / "words.txt").read_text().split()

# Exit code 0: the account is locked, or none of the words on standard input is its password.
NONE_FITS = """
my $hash = (getpwnam("maria"))[1];
while (my $word = <STDIN>) { chomp $word; exit 1 if crypt($word, $hash) eq $hash; }
"""


def test_the_server_is_there_to_be_guessed_at(machine):
    """The server has maria's account, and its SSH server runs."""
    assert machine("server").user("maria").exists
    assert machine("server").service("ssh").is_running


@pytest.mark.task(3)
def test_marias_note_was_read(lab):
    """Maria's note lies on the attacker as /root/note.txt."""
    note = lab.exec("attacker", ["cat", "/root/note.txt"])
    assert lab.is_secret("note", note.stdout.decode().strip())


@pytest.mark.task(2)
def test_marias_password_is_in_no_list(lab, machine):
    """Maria has a password that is not in the list."""
    assert machine("server").user("maria").exists
    assert lab.exec("server", ["perl", "-e", NONE_FITS], stdin="\n".join(WORDS).encode()).code == 0


@pytest.mark.task(3)
def test_the_server_takes_no_passwords(machine):
    """The SSH server that runs lets nobody in by a password."""
    offered = machine("attacker").run(
        "ssh -v -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
        "-o PubkeyAuthentication=no maria@10.44.0.10 true"
    )
    assert "Authentications that can continue:" in offered.stderr, "the server is to answer"
    assert "password" not in offered.stderr.split("Authentications that can continue:")[1].splitlines()[0]


@pytest.mark.task(2)
def test_maria_logs_in_by_key(machine):
    """The attacker's root, who is Maria now, logs in by a key."""
    login = machine("attacker").run(
        "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
        "-o PasswordAuthentication=no maria@10.44.0.10 id -un"
    )
    assert login.stdout.strip() == "maria"
