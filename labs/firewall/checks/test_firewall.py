"""The lab itself, and the six tasks of its README."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SPARE = 8443  # of the agency's ports, one at which nothing of the lab listens

# Which of the doors ADDRESS/PORT let somebody in. All are tried at once: a dropped packet is answered by nobody.
KNOCK = """
import errno, select, socket, sys, time
poll, waiting = select.poll(), {}
for door in sys.argv[1:]:
    address, _, port = door.rpartition("/")
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    one.setblocking(False)
    if one.connect_ex((address, int(port))) in (0, errno.EINPROGRESS):
        poll.register(one, select.POLLOUT)
        waiting[one.fileno()] = door, one
end = time.monotonic() + 6
while waiting and time.monotonic() < end:
    for number, _ in poll.poll(500):
        poll.unregister(number)
        door, one = waiting.pop(number)
        if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            print(door)
"""

# Listens at ports, but for those that are taken, and takes nobody in. Its first process ends when it listens.
LISTEN = """
import os, socket, sys, time
kept = []
for port in sys.argv[1:]:
    one = socket.socket(socket.AF_INET6)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind(("::", int(port)))
        one.listen()
    except OSError:
        continue
    kept.append(one)
if not os.fork():
    time.sleep(60)
"""

# What fw's ruleset beside labctl's is: $1 is `now`, or what it would be after a restart, tried in a network of its own.
RULESET = """
if [ "$1" = now ]; then
  nft --stateless list ruleset | sed '/^table inet labctl /,/^}/d'
  exit
fi
exec unshare --net sh -ec '
  nft add table inet labctl
  for nic in eth0 eth1 eth2 mgmt; do ip link add "$nic" type dummy 2>/dev/null || :; done
  nft -f /etc/nftables.conf
  nft list table inet labctl >/dev/null
  nft delete table inet labctl
  nft --stateless list ruleset'
"""


class Doors:
    """Who gets in where. A machine is meant by all of its addresses on a network."""

    def __init__(self, lab, plan) -> None:
        self.lab, self.plan = lab, plan

    def of(self, machine: str, *ports: int, network: str | None = None) -> set[str]:
        """The doors of a machine at some ports, in both families."""
        seats = [i for i in self.plan.machine(machine).interfaces if network in (None, i.network)]
        return {f"{address}/{port}" for seat in seats for address in seat.addresses() for port in ports}

    def open(self, source: str, doors: set[str]) -> set[str]:
        """Those that let somebody in who comes from a machine."""
        knocked = self.lab.exec(source, ["python3", "-c", KNOCK, *sorted(doors)])
        assert knocked.code == 0, knocked.stderr.decode()
        return set(knocked.stdout.decode().split())

    @contextmanager
    def listening(self, machine: str, *ports: int) -> Iterator[None]:
        """Have something listen at these ports for a while, so that a closed door is the firewall's doing."""
        unit = "knock-knock"
        run = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", "--property=Type=forking"]
        started = self.lab.exec(machine, [*run, "python3", "-c", LISTEN, *map(str, ports)])
        assert started.code == 0, started.stderr.decode()
        try:
            yield
        finally:
            self.lab.exec(machine, ["systemctl", "stop", unit])


@pytest.fixture(scope="module")
def doors(lab, plan) -> Doors:
    return Doors(lab, plan)


@pytest.fixture(scope="module")
def stopped(doors) -> set[str]:
    """What the README's table lets pass and does not pass: closing everything is no firewall."""
    shop, staging, ssh = doors.of("web", 80), doors.of("web", 8080), doors.of("web", 22)
    wanted = {
        "attacker": shop,
        "web": doors.of("db", 6379),
        "db": shop | staging,
        "admin": shop | staging | ssh | doors.of("fw", 22, network="lan"),
    }
    return {f"{who} to {door}" for who, those in wanted.items() for door in those - doors.open(who, those)}


def test_business_goes_on(stopped):
    """What the company's policy lets pass does pass."""
    assert stopped == set()


def test_the_shop_is_the_shop(lab, machine):
    """The attacker gets the page of the shop through the firewall."""
    assert "Acme Anvils" in machine("attacker").check_output("curl -sS -m 30 http://%s/", lab.address("web"))


@pytest.mark.task(4)
def test_the_customers_record_was_read(lab):
    """The record of customer 1 lies on the attacker as /root/customer.txt."""
    record = lab.exec("attacker", ["cat", "/root/customer.txt"])
    assert record.stdout.decode().strip() == lab.secret("customer")


@pytest.mark.task(4)
def test_the_outside_reaches_the_shop_alone(lab, doors, stopped):
    """Of the web server the outside reaches port 80 and no other, in IPv4 and IPv6."""
    assert stopped == set()
    debug = int(lab.secret("debug-port"))
    tried = doors.of("web", 22, 8080, SPARE, debug)
    with doors.listening("web", SPARE, debug):
        assert doors.open("web", tried) == tried
        assert doors.open("attacker", tried) == set()


@pytest.mark.task(2)
def test_the_relay_is_gone(lab, machine, doors, stopped):
    """Nothing on the web server hands connections on to the database, nor will after a restart."""
    assert stopped == set()
    assert doors.open("fw", doors.of("web", int(lab.secret("debug-port")))) == set()
    relay = machine("web").run("systemctl is-enabled debug-relay.socket")
    assert relay.stdout.strip() not in ("enabled", "enabled-runtime", "linked", "alias")


@pytest.mark.task(4)
def test_the_dmz_reaches_the_database_alone(doors, stopped):
    """Of the LAN the DMZ reaches the port of the database and no other, in IPv4 and IPv6."""
    assert stopped == set()
    tried = doors.of("db", 22) | doors.of("admin", 22, SPARE)
    with doors.listening("admin", SPARE):
        assert doors.open("db", tried) == tried
        assert doors.open("web", tried) == set()


@pytest.mark.task(4)
def test_the_firewall_is_managed_by_the_admin_alone(doors, stopped):
    """Nobody but the admin reaches the SSH server of the firewall, in IPv4 and IPv6."""
    assert stopped == set()
    for source, network in (("attacker", "outside"), ("web", "dmz"), ("db", "lan")):
        assert doors.open(source, doors.of("fw", 22, network=network)) == set(), f"{source} gets in"


@pytest.mark.task(2)
def test_the_firewall_is_the_same_after_a_restart(lab, machine, stopped):
    """What the firewall has loaded is what it will load at its next start."""
    assert stopped == set()
    now, after = (lab.exec("fw", ["sh", "-ec", RULESET, "sh", when]) for when in ("now", "after"))
    assert after.code == 0, f"/etc/nftables.conf alone does not load, or flushes labctl's: {after.stderr.decode()}"
    assert "hook forward" in now.stdout.decode()
    assert after.stdout == now.stdout, "the rules that are loaded are not those of /etc/nftables.conf"
    assert machine("fw").service("nftables").is_enabled, "nothing loads /etc/nftables.conf at a start"
