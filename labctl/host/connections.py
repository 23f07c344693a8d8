"""TCP connections of this host, without asking who has them."""

from __future__ import annotations

from labctl.errors import HostError


def targets() -> frozenset[tuple[str, int]]:
    """Addresses and ports that somebody on this host is connected to now. Raises HostError where that is not told."""
    import psutil  # costs more to import than most verbs take

    try:
        found = psutil.net_connections(kind="tcp")
    except (psutil.AccessDenied, OSError) as error:
        raise HostError(
            "this system tells its administrator alone who is connected", hint="Repeat the command as root."
        ) from error
    there = (one.raddr for one in found if one.status == psutil.CONN_ESTABLISHED and one.raddr)
    return frozenset((str(address.ip), int(address.port)) for address in there)
