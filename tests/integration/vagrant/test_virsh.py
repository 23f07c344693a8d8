"""A virsh that answers badly: what labctl must not conclude from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.errors import ProviderError
from labctl.host.runner import Runner
from labctl.providers.vagrant.virsh import Virsh

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("listed", [True, False])
def test_a_domain_of_which_libvirt_says_nothing_is_not_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    """What is absent is made anew, and what is left of it removed."""
    program = tmp_path / "virsh"
    names = "echo lab.one" if listed else ":"
    program.write_text(f"#!/bin/sh\ncase $* in *' list '*) {names} ;; *) echo 'error: timed out' >&2; exit 1 ;; esac\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    virsh = Virsh("qemu:///system", Runner())
    if listed:
        with pytest.raises(ProviderError, match="virsh"):
            virsh.domain("lab.one")
    else:
        assert virsh.domain("lab.one") is None
