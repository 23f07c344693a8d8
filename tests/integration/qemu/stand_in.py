"""A program that behaves as QEMU does towards labctl, with a guest that does at once what it is told.

It notes in ``calls`` beside it what it is asked. How the next copies of a template begin is in ``copies`` beside it, a
word each: ``ok``, ``refuse`` (end with an error), ``fail`` (do not take the state) or ``hang``; then all begin well.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(sys.argv[0]).parent
SAID = b"\nlabctl: ended 0\n"  # what those who wait in a copy say at last


def note(word: str) -> None:
    with (HERE / "calls").open("a") as calls:
        calls.write(f"{word}\n")


def option(pattern: str) -> str:
    found = re.search(pattern, " ".join(sys.argv))
    assert found is not None, sys.argv
    return found.group(1)


def begin() -> str:
    """How this process is to behave."""
    (HERE / "moves").unlink(missing_ok=True)
    if "-incoming" not in sys.argv:
        (HERE / "moves").touch()
        note("boot")
        return "ok"
    left = (HERE / "copies").read_text().split() if (HERE / "copies").exists() else []
    word = left.pop(0) if left else "ok"
    (HERE / "copies").write_text(" ".join(left))
    note(f"copy {word}")
    return word


def monitor(listener: socket.socket, word: str) -> None:
    while True:
        caller, _ = listener.accept()
        note("monitor")
        with caller, caller.makefile("rb") as lines, contextlib.suppress(OSError):
            caller.sendall(b'{"QMP": {}}\n')
            for line in lines:
                caller.sendall(json.dumps({"return": told(json.loads(line)["execute"], word)}).encode() + b"\n")


def told(command: str, word: str) -> Any:
    if command == "cont":
        (HERE / "moves").touch()
    answers: dict[str, Any] = {
        "query-status": {"status": "running" if (HERE / "moves").exists() else "paused"},
        "query-migrate": {"status": "failed" if word == "fail" else "completed"},
        "human-monitor-command": "",
    }
    return answers.get(command, {})


def guest(path: str) -> None:
    into, out = (os.open(f"{path}.{end}", os.O_RDWR) for end in ("in", "out"))
    with os.fdopen(into, "rb") as lines, os.fdopen(out, "wb", 0) as caller:
        for line in lines:
            request = json.loads(line.lstrip(b"\xff"))
            command, arguments = request["execute"], request.get("arguments", {})
            note(command)
            answer = {
                "guest-sync-delimited": arguments.get("id"),
                "guest-exec": {"pid": 7},
                "guest-exec-status": {"exited": True, "exitcode": 0},
                "guest-file-open": 1,
                "guest-file-write": {"count": 0, "eof": False},
                "guest-file-read": {"count": len(SAID), "buf-b64": base64.b64encode(SAID).decode(), "eof": True},
                "guest-file-close": {},
            }[command]
            prefix = b"\xff" if command == "guest-sync-delimited" else b""
            caller.write(prefix + json.dumps({"return": answer, "id": request.get("id")}).encode() + b"\n")


def door(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            caller, _ = server.accept()
            note("login")
            with caller:
                caller.sendall(b"SSH-2.0-x\r\n")


def main() -> None:
    word = begin()
    if word == "refuse":
        sys.exit("the template is no good")
    if word != "hang":
        listener, path = socket.socket(socket.AF_UNIX), option(r"id=qmp,path=([^,\s]+)")
        Path(path).unlink(missing_ok=True)  # one that was killed has left it
        listener.bind(path)
        listener.listen()
        parts = [
            (monitor, (listener, word)),
            (guest, (option(r"id=agent,path=([^,\s]+)"),)),
            (door, (int(option(r"hostfwd=tcp:127\.0\.0\.1:(\d+)")),)),
        ]
        for work, values in parts:
            threading.Thread(target=work, args=values, daemon=True).start()  # type: ignore[arg-type]
    time.sleep(60)


if __name__ == "__main__":
    main()
