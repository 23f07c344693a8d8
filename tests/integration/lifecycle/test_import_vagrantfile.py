"""Vagrantfiles read by the real Vagrant: what becomes of ordinary ones, and what hostile ones cannot do.

What a hostile file tries is also done by the test itself where that is allowed, so that a failure of the attempt means
something.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from labctl.errors import HostError, UsageError
from labctl.lifecycle.foreign.evaluate import evaluate
from labctl.lifecycle.foreign.translate import Translation, translate
from labctl.spec.load import load

pytestmark = pytest.mark.integration

GOLDENS = Path(__file__).resolve().parents[2] / "golden/import"
CASES = sorted(path.parent for path in GOLDENS.glob("*/Vagrantfile"))

MACHINE = """
Vagrant.configure("2") do |config|
  config.vm.box = "debian/bookworm64"
  config.vm.define "web"
end
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that is nobody's, to see that nothing is left in it."""
    assert shutil.which("vagrant"), "Vagrant is not installed; make setup installs it (Debian: apt install vagrant)"
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("VAGRANT_HOME", str(folder / "not-this-one"))
    monkeypatch.setenv("VAGRANT_VAGRANTFILE", "NotThisOne")
    return folder


def vagrantfile(folder: Path, text: str) -> Path:
    lab = folder / "lab"
    lab.mkdir(exist_ok=True)
    (lab / "Vagrantfile").write_text(text, encoding="utf-8")
    return lab


def imported(folder: Path, text: str) -> Translation:
    return translate(vagrantfile(folder, text), None, consent=lambda _: True)


def assert_one_machine(made: Translation) -> None:
    assert made.problems == ()
    assert "\n  web:\n    image: debian/bookworm64\n" in made.text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_lab_is_the_one_that_was_agreed(case: Path, tmp_path: Path, home: Path) -> None:
    before = sorted(case.rglob("*"))
    made = translate(case, None, consent=lambda _: True)
    expected = case / "lab.yaml"
    if os.environ.get("LABCTL_WRITE_GOLDEN"):
        expected.write_text(made.text, encoding="utf-8")
    assert made.problems == ()
    assert made.text == expected.read_text(encoding="utf-8")
    assert load(expected).machines
    assert made.confinement is not None
    assert (made.confinement.network, made.confinement.files) == (True, True), "this host has no namespaces"
    assert list(home.iterdir()) == []
    assert sorted({*case.rglob("*")} - {expected}) == sorted({*before} - {expected})


PLUGINS = Path("/usr/share/vagrant-plugins")  # Debian's


@pytest.mark.skipif(not PLUGINS.is_dir(), reason="only Debian's Vagrant keeps its list of plugins there")
def test_a_vagrant_that_has_never_run_before_reads_it_too(tmp_path: Path) -> None:
    """The list of plugins that the package brings is one that Vagrant wants to rewrite first."""
    new = tmp_path / "plugins"
    shutil.copytree(PLUGINS, new)
    (new / "plugins.json").write_text("{}")
    lab = vagrantfile(tmp_path, MACHINE)
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    labctl = [sys.executable, "-m", "labctl", "import", "--run-vagrantfile", lab, "-o", tmp_path / "made"]
    argv = ["unshare", "--mount", "--", "sh", "-ec", script, "sh", new, PLUGINS, *labctl]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "\n  web:\n    image: debian/bookworm64\n" in (tmp_path / "made/lab.yaml").read_text()
    assert (new / "plugins.json").read_text() == "{}", "and the host's list is as it was"


def test_printing_and_programs_that_print_break_nothing(tmp_path: Path) -> None:
    text = """
    puts '{"machines": []}', "\\0\\xff garbage"
    $stdout.syswrite('{"code": 0, "result": "{}"}')
    $stderr.puts "garbage"
    system("echo garbage; echo garbage >&2")
    puts "x" * 20_000_000
    """
    assert_one_machine(imported(tmp_path, text + MACHINE))


def test_what_comes_at_the_end_of_the_program_does_not_change_the_result(tmp_path: Path) -> None:
    text = """
    at_exit { Dir.glob("#{ENV["TMPDIR"]}/*.json").each { |file| File.write(file, "{}") } }
    Dir.glob("#{ENV["TMPDIR"]}/**/*.json").each { |file| File.write(file, "{}") }
    """
    assert_one_machine(imported(tmp_path, text + MACHINE))


def test_no_file_outside_can_be_written_or_removed(tmp_path: Path, home: Path) -> None:
    victim, name = tmp_path / "victim", f"labctl-import-{tmp_path.name}"
    victim.write_text("precious")
    news = [folder / name for folder in (tmp_path, tmp_path / "lab", home, Path.cwd(), Path("/etc"), Path("/var/tmp"))]
    attempts = [f"system('mount', '-o', 'remount,bind,rw', {str(folder)!r})" for folder in tmp_path.parents]
    attempts += [f"File.write({str(path)!r}, 'owned') rescue 0" for path in (*news, victim)]
    attempts += [f"File.unlink({str(victim)!r}) rescue 0", f"system('sh', '-c', 'echo owned >{victim}')"]
    try:
        assert_one_machine(imported(tmp_path, "\n".join(attempts) + MACHINE))
        assert victim.read_text() == "precious"
        assert [path for path in news if path.exists()] == []
    finally:
        for path in news:
            path.unlink(missing_ok=True)


def test_a_file_that_insists_on_writing_is_told_why_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        imported(tmp_path, "File.write(File.join(__dir__, 'inventory.ini'), 'x')" + MACHINE)
    assert "Read-only file system" in error.value.details


@pytest.fixture
def listener() -> Iterator[tuple[socket.socket, list[bytes]]]:
    """A server on loopback and what reached it."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server, heard), daemon=True).start()
        yield server, heard


def _serve(server: socket.socket, heard: list[bytes]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            heard.append(connection.recv(100))


def test_no_network_can_be_reached(tmp_path: Path, listener: tuple[socket.socket, list[bytes]]) -> None:
    server, heard = listener
    port = server.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as control:
        control.sendall(b"control")
    text = f"""
    require "socket"
    begin
      TCPSocket.open("127.0.0.1", {port}) {{ |s| s.write("leak") }}
    rescue SystemCallError => error
      $seen = error.class.name
    end
    """
    made = imported(tmp_path, text + MACHINE.replace('"web"', '"web-#{$seen}"'))
    deadline = time.monotonic() + 5
    while b"control" not in heard and time.monotonic() < deadline:
        time.sleep(0.05)
    assert heard == [b"control"]
    assert "  web-errno-e" in made.text


@pytest.mark.parametrize("folder", ["/tmp", "/run", "/dev/shm"])
def test_no_socket_of_the_host_can_be_reached(tmp_path: Path, folder: str) -> None:
    heard: list[bytes] = []
    made = Path(tempfile.mkdtemp(dir=folder))
    try:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as control:
            server.bind(str(made / "daemon"))
            server.listen()
            threading.Thread(target=_serve, args=(server, heard), daemon=True).start()
            control.connect(str(made / "daemon"))
            control.sendall(b"control")
            text = f"""
            require "socket"
            begin
              UNIXSocket.open("{made}/daemon") {{ |s| s.write("leak") }}
            rescue SystemCallError
            end
            """
            assert_one_machine(imported(tmp_path, text + MACHINE))
        assert b"leak" not in heard
    finally:
        shutil.rmtree(made)


def test_an_endless_file_ends_with_all_that_it_started(tmp_path: Path) -> None:
    lab = vagrantfile(tmp_path, 'spawn("setsid", "sleep", "86399.5"); loop { sleep 1 }')
    started = time.monotonic()
    with pytest.raises(UsageError, match="did not end within 6 s"):
        evaluate(lab / "Vagrantfile", seconds=6)
    assert time.monotonic() - started < 20
    assert [p for p in psutil.process_iter(["cmdline"]) if "86399.5" in (p.info["cmdline"] or [])] == []


def test_what_a_file_leaves_running_ends_with_it(tmp_path: Path) -> None:
    assert_one_machine(imported(tmp_path, 'spawn("setsid", "sleep", "86399.25")' + MACHINE))
    assert [p for p in psutil.process_iter(["cmdline"]) if "86399.25" in (p.info["cmdline"] or [])] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("this is (no ruby", "yntax error"),
        ('raise "on purpose: \\e[31m"', "on purpose: \ufffd[31m"),
        ("exit 0", "SystemExit"),
        ("abort 'gave up'", "gave up"),
        ("$stderr.puts 'last words'; exit! 3", "last words"),
        ("Vagrant.configure('2') { |c| c.vm.define(:x) { |m| no_such_thing } }", "no_such_thing"),
        ("def f; f; end; f", "stack level too deep"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_quoted(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        imported(tmp_path, text)
    assert said in error.value.details


def test_a_result_that_is_no_json_is_no_bug(tmp_path: Path) -> None:
    text = 'module JSON; def self.generate(*); "[" * 100_000; end; end'
    with pytest.raises(UsageError, match="found no machine"):
        imported(tmp_path, text + MACHINE)


def test_a_host_without_namespaces_says_so_and_still_reads_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/vagrant").symlink_to(str(shutil.which("vagrant")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    made = imported(
        tmp_path, "puts 'garbage'; File.write(File.join(__dir__, 'mark'), ENV['VAGRANT_VAGRANTFILE'].inspect)" + MACHINE
    )
    assert_one_machine(made)
    assert str(made.confinement) == "with your rights, since this host has no namespaces to confine it in"
    assert (tmp_path / "lab/mark").read_text() == "nil"
    (tmp_path / "bin/vagrant").unlink()
    with pytest.raises(HostError, match="Vagrant is not installed"):
        imported(tmp_path, MACHINE)


def labctl(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "labctl", "import", *map(str, arguments)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_runs_nothing_unasked(tmp_path: Path) -> None:
    lab = vagrantfile(tmp_path, MACHINE)
    done = labctl(lab, "-o", "new", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is a program" in done.stderr
    assert "--run-vagrantfile" in done.stderr
    assert not (tmp_path / "new").exists()


def test_the_command_writes_a_lab_with_its_files(tmp_path: Path) -> None:
    source = GOLDENS / "vagrant-plain"
    done = labctl(source, "-o", "new", "--run-vagrantfile", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "without a network" in done.stderr
    written = {str(path.relative_to(tmp_path / "new")) for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert written == {"lab.yaml", "scripts/setup.sh", "scripts/index.html"}
    assert done.stdout.split() == [f"new/{name}" for name in ("scripts/index.html", "scripts/setup.sh", "lab.yaml")]
    assert {"web", "client-1", "client-2"} == set(load(tmp_path / "new").machines)


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 2)])
def test_the_command_asks_on_a_terminal(tmp_path: Path, answer: bytes, code: int) -> None:
    import pty  # not on Windows

    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        argv = [sys.executable, "-m", "labctl", "import", str(vagrantfile(tmp_path, MACHINE))]
        done = subprocess.run(argv, stdin=theirs, capture_output=True, text=True, timeout=120, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    assert "is a program. Run it?" in done.stderr
    assert (done.returncode, "\n  web:\n" in done.stdout) == (code, code == 0), done.stderr
