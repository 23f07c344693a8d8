"""What labctl puts into every root file system beside packages: files, and services that are switched off."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

FILES = Path(__file__).parent / "guest"
"""Copied into the guest as they are, below its root."""

# Under emulation every program started at boot costs 0.1 to 0.5 s, and none of these does anything for a lab's guest.
_MASKED_UNITS = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("systemd-tmpfiles-clean.timer", "e2scrub_reap.service", "systemd-logind.service", "systemd-pstore.service"),
    *("systemd-random-seed.service", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount"),
    *("kmod-static-nodes.service", "systemd-tmpfiles-setup-dev.service", "systemd-remount-fs.service"),
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-fs-fuse-connections.mount", "sys-kernel-config.mount"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "systemd-firstboot.service", "systemd-repart.service"),
    *("systemd-pcrphase-sysinit.service", "systemd-pcrphase.service", "systemd-sysusers.service"),
    *("systemd-ask-password-console.path", "systemd-ask-password-wall.path", "systemd-update-utmp.service"),
    *("systemd-update-utmp-runlevel.service", "systemd-machine-id-commit.service", "systemd-network-generator.service"),
    *("systemd-journal-flush.service", "systemd-journald-audit.socket", "systemd-initctl.socket"),
    *("systemd-user-sessions.service", "remote-fs.target", "getty-static.service", "modprobe@.service"),
    *("cryptsetup.target", "integritysetup.target", "veritysetup.target"),
)
# systemd-nologin.conf: with systemd-user-sessions off, nothing would remove the file that it makes, and only root could
# log in. tmp.conf empties /tmp, after labctl or Vagrant may have put something there: they do not wait for it.
_MASKED_TMPFILES = ("systemd-nologin.conf", "tmp.conf")
# Kept: fstab and sysv, which packages and users rely on.
_MASKED_GENERATORS = (
    *("cryptsetup", "debug", "getty", "gpt-auto", "hibernate-resume", "integritysetup", "rc-local", "run"),
    *("system-update", "veritysetup"),
)
_ENABLED_UNITS = {
    "qemu-guest-agent.service": "sysinit.target",
    "ssh.service": "multi-user.target",
    "labctl-console.service": "multi-user.target",
}
# Read by every later dpkg run too. Documentation is most of a small image's files; dbus starts when somebody speaks to
# it; nothing here needs a hardware database.
_DPKG = """\
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/lib/udev/hwdb.d/*
path-exclude=/usr/lib/udev/hwdb.d/*
path-exclude=/lib/systemd/system/multi-user.target.wants/dbus.service
force-unsafe-io
"""
# The server's package makes a key of each kind, 9 s of work, unless there is one; finish.sh removes these.
_HOST_KEYS = ("rsa", "ecdsa", "ed25519")


def early_tar() -> bytes:
    """A tar archive of what must be there before most packages are installed."""
    files = {f"etc/ssh/ssh_host_{kind}_key": b"" for kind in _HOST_KEYS}
    return _tar({"etc/dpkg/dpkg.cfg.d/labctl": _DPKG.encode(), **files}, {})


def overlay_tar() -> bytes:
    """A tar archive of what stands over the packages' own files. The same bytes for the same labctl."""
    files = {path.relative_to(FILES).as_posix(): path.read_bytes() for path in FILES.rglob("*") if path.is_file()}
    return _tar(files, _links())


def _links() -> dict[str, str]:
    system = "etc/systemd/system"
    links = {f"{system}/{unit}": "/dev/null" for unit in _MASKED_UNITS}
    links |= {f"etc/tmpfiles.d/{name}": "/dev/null" for name in _MASKED_TMPFILES}
    links |= {f"etc/systemd/system-generators/systemd-{name}-generator": "/dev/null" for name in _MASKED_GENERATORS}
    links |= {f"{system}/{target}.wants/{unit}": f"../{unit}" for unit, target in _ENABLED_UNITS.items()}
    links[f"{system}/default.target"] = "/lib/systemd/system/multi-user.target"
    return links


def _tar(files: dict[str, bytes], links: dict[str, str]) -> bytes:
    folders = {parent.as_posix() for name in (*files, *links) for parent in Path(name).parents} - {"."}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted({*folders, *files, *links}):
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755 if name in folders else 0o644
            if name in folders:
                entry.type = tarfile.DIRTYPE
            elif name in links:
                entry.type, entry.linkname = tarfile.SYMTYPE, links[name]
            else:
                entry.size = len(files[name])
            tar.addfile(entry, io.BytesIO(files.get(name, b"")))
    return buffer.getvalue()
