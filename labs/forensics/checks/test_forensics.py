"""The lab itself, and the twelve tasks of its README: seven things to find out, five to do."""

from datetime import UTC, datetime, timedelta

import pytest

SHOP = "http://203.0.113.10"
STAFF = ("ada", "bruno", "carla", "dimitri", "elena")

# Exit code 0: the account is locked, or the word on standard input is not its password.
DOES_NOT_FIT = """
my $hash = (getpwnam($ARGV[0]))[1];
chomp(my $word = <STDIN>);
exit(crypt($word, $hash) eq $hash);
"""


def report(lab):
    """What the student has found out, by what is asked."""
    lines = lab.exec("server", ["cat", "/root/report.txt"]).stdout.decode(errors="replace").splitlines()
    return {name.strip(): answer.strip() for name, colon, answer in (line.partition(":") for line in lines) if colon}


def is_right(lab, name, before=""):
    """Whether an answer is what this instance's secret of that name says, behind `before`."""
    return report(lab).get(name) == before + lab.secret(name)


def logins(lab):
    """When the intruder logged in with the stolen account's password."""
    journal = lab.exec("server", ["journalctl", "--no-pager", "-q", "-o", "short-unix", "-t", "sshd"]).stdout.decode()
    entered = f"Accepted password for {lab.secret('account')} from {lab.secret('address')} "
    return [datetime.fromtimestamp(float(line.split()[0]), UTC) for line in journal.splitlines() if entered in line]


def status(lab, path):
    """The status with which the shop answers, path as it is written."""
    words = ["curl", "-sS", "-m", "30", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", f"{SHOP}{path}"]
    done = lab.exec("outside", words)
    assert done.code == 0, f"the shop is to answer: {done.stderr.decode()}"
    return int(done.stdout)


def shop_works(lab):
    """Whether the shop has its pages and pictures."""
    return {status(lab, path) for path in ("/", "/prices.html", "/images/anvil.svg")} == {200}


def test_the_server_serves(lab, machine):
    """The shop is open, SSH and cron run."""
    assert shop_works(lab)
    assert all(machine("server").service(name).is_running for name in ("ssh", "cron"))


def test_the_logs_are_there(lab, machine):
    """The server's logs hold what happened, and are on its disk."""
    requests = machine("server").file("/var/log/nginx/access.log").content_string.splitlines()
    ends = ('" 200 ', lab.secret("agent"), f"/images../backup/{lab.secret('file')} ")
    taken = [line for line in requests if line.startswith(f"{lab.secret('address')} ") and all(e in line for e in ends)]
    assert taken
    assert logins(lab)
    assert machine("server").run("ls /var/log/journal/*/system.journal").rc == 0


@pytest.mark.task(1)
def test_address(lab):
    """The report says from which address the intruder came."""
    assert is_right(lab, "address")


@pytest.mark.task(1)
def test_agent(lab):
    """The report says what the intruder's web requests called themselves."""
    assert is_right(lab, "agent")


@pytest.mark.task(2)
def test_file(lab):
    """The report says which file was taken."""
    assert is_right(lab, "file", "/srv/shop/backup/")


@pytest.mark.task(2)
def test_account(lab):
    """The report says whose account was guessed."""
    assert is_right(lab, "account")


@pytest.mark.task(2)
def test_time(lab):
    """The report says when the intruder first logged in, to the minute, and the journal still does as well."""
    first = min(logins(lab), default=None)
    assert first is not None, "the journal is to be kept"
    said = datetime.strptime(report(lab).get("time", ""), "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    assert abs(said + timedelta(seconds=30) - first) <= timedelta(seconds=90)


@pytest.mark.task(1)
def test_user(lab):
    """The report says which account the intruder made."""
    assert is_right(lab, "user")


@pytest.mark.task(1)
def test_job(lab):
    """The report says which file starts what lets the intruder back in."""
    assert is_right(lab, "job", "/etc/cron.d/")


@pytest.mark.task(3)
def test_the_job_is_gone(lab, machine):
    """Neither the intruder's job nor its program is there, and the shop's own is."""
    server, job = machine("server"), lab.secret("job")
    assert server.file("/etc/cron.d/shop-backup").exists
    assert server.run("/usr/local/sbin/shop-backup").rc == 0, "the shop's backup is to work"
    assert not server.file(f"/etc/cron.d/{job}").exists
    assert not server.file(f"/usr/local/sbin/{job}").exists


@pytest.mark.task(2)
def test_the_user_is_gone(lab, machine):
    """The intruder's account is gone, and those of the staff are there."""
    server = machine("server")
    assert all(server.user(name).exists for name in STAFF)
    assert not server.user(lab.secret("user")).exists


@pytest.mark.task(2)
def test_the_key_is_gone(lab, machine):
    """The intruder's key opens no account, and those of the staff are still in place."""
    server, outside = machine("server"), machine("outside")
    for name in STAFF:
        assert f" {name}@desk" in server.file(f"/home/{name}/.ssh/authorized_keys").content_string
    options = (
        "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o PasswordAuthentication=no"
    )
    for name in ("root", lab.secret("account"), lab.secret("user")):
        login = outside.run(f"ssh {options} -i /root/intruder %s@203.0.113.10 true", name)
        assert login.rc != 0, f"the key opens {name}"
        assert "Permission denied" in login.stderr, "the SSH server is to answer"


@pytest.mark.task(1)
def test_the_password_is_another(lab, machine):
    """The guessed password opens the account no more, and the account is there."""
    name = lab.secret("account")
    assert machine("server").user(name).exists
    tried = lab.exec("server", ["perl", "-e", DOES_NOT_FIT, name], stdin=lab.secret("weak").encode())
    assert tried.code == 0


@pytest.mark.task(2)
def test_the_hole_is_closed(lab):
    """The shop gives its pages and pictures, and nothing beside them."""
    assert shop_works(lab)
    for path in (f"/images../backup/{lab.secret('file')}", "/images../www/index.html", "/images../backup/"):
        assert status(lab, path) >= 400, path
