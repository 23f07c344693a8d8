"""A snapshot whose memory is beside the disk as one that has it within: that is what goes to other hosts.

They have another template or none, and what differs from this one's is worth nothing to them. So the machine is put
back once more beside itself, on wires that lead nowhere, and QEMU writes all of its memory; the guest does not move.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from labctl.errors import ProviderError
from labctl.host.files import private_folder, remove_tree
from labctl.host.folders import runtime_root
from labctl.host.runner import CommandError, Runner, mortal
from labctl.plan.model import LabPlan
from labctl.providers.qemu import bases, memory, offcut, streams, vm, way_in
from labctl.providers.qemu.argv import Ram, Seat, machine_argv
from labctl.providers.qemu.checkpoints import Note, beside, run_job
from labctl.providers.qemu.layout import Layout, MachineFiles
from labctl.providers.qemu.start import served
from labctl.providers.qemu.wires import Wires

_END_SECONDS = 20.0
_DISK_SECONDS = 600.0


def take_in(layout: Layout, wires: Wires, plan: LabPlan, note: Note, key: str, disk: Path, *, runner: Runner) -> None:
    """Put the memory of a snapshot into a copy of its disk, which has that snapshot and nothing else.

    Raises ProviderError, HostError.
    """
    machine, base = plan.machine(note.record.name), bases.find(layout, note.base)
    if base is None:
        raise ProviderError(f"{machine.name} has no whole snapshot {key}")
    folder = private_folder(disk.with_name(f"{disk.name}.within"))
    sockets = Path(tempfile.mkdtemp(prefix="w", dir=runtime_root()))
    files = MachineFiles(folder, sockets / "w")
    try:
        disk.rename(files.overlay)
        for what in ("-a", "-d"):  # QEMU writes a snapshot of what the disk is now, under the same name
            runner.run(["qemu-img", "snapshot", what, key, files.overlay], timeout=_DISK_SECONDS)
        with wires.aside(machine, sockets) as ends:
            mark, ram = f"labctl-export:{machine.name}", Ram(base.ram, shared=False)
            seat = Seat(note.needs["accelerator"], 0, files, ends.netdevs, mark, ram, still=True)
            streams.make_pipes(files.agent)
            argv = machine_argv(plan, machine, note.record.boot_image, seat)
            process = runner.spawn([*mortal(), *argv], output=files.log, pass_fds=ends.fds)
            try:
                with served(process, files) as session:
                    way_in.cut(session)
                    memory.load(session, process.pid, base, beside(layout, machine.name, key))
                    run_job(session, "snapshot-save", tag=key, vmstate="disk0", devices=["disk0"])
                    session.execute("quit")
                process.wait(_END_SECONDS)
            finally:
                process.kill()
                process.wait()
        offcut.write(files.overlay, key, disk)
    except subprocess.TimeoutExpired as error:
        raise ProviderError(f"{machine.name}: QEMU does not end") from error
    except CommandError as error:
        raise ProviderError(error.brief, details=error.details) from error
    except ProviderError as error:
        words = vm.tail(files.log, lines=2)
        raise ProviderError(f"{machine.name}: {error.brief}", details=error.details or words) from error
    finally:
        remove_tree(sockets)
        remove_tree(folder)
