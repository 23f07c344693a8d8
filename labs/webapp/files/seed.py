"""Make the intranet's database and files, with what is this instance's own. Run by the provisioning step, as root."""

import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

sys.path.insert(0, "/srv/intranet")
from app import DATABASE, FILES, HOME, digest

SECRETS = Path(os.environ["LABCTL_SECRETS"])
TABLES = """
CREATE TABLE users (name TEXT PRIMARY KEY, password TEXT NOT NULL);
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE notices (id INTEGER PRIMARY KEY, author TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE notes (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, text TEXT NOT NULL);
"""
NOTICES = (
    ("admin", "Welcome to the intranet."),
    ("paula", "I look at this board all day long. Write, and I will have read it a minute later!"),
    ("admin", "Whoever borrowed the big anvil, please bring it back."),
    ("paula", "Mr O'Brien visits us on Friday."),
)


def secret(name):
    return (SECRETS / name).read_text()


def own(path, mode):
    """Let the application have a file of its own."""
    path.chmod(mode)
    shutil.chown(path, "intranet", "intranet")


Path(DATABASE).unlink(missing_ok=True)
passwords = {"admin": os.urandom(16).hex(), "paula": secret("paula"), "student": "student"}
notes = (
    ("paula", "Buy a cake for Friday."),
    ("admin", "Ask for a second anvil."),
    ("paula", f"The door of the safe: {secret('note')}"),
)
with closing(sqlite3.connect(DATABASE)) as connection, connection:
    connection.executescript(TABLES)
    users = [(name, digest(name, password)) for name, password in passwords.items()]
    connection.executemany("INSERT INTO users VALUES (?, ?)", users)
    connection.execute("INSERT INTO settings VALUES ('licence', ?)", (secret("licence"),))
    connection.executemany("INSERT INTO notices (author, text) VALUES (?, ?)", NOTICES)
    connection.executemany("INSERT INTO notes (owner, text) VALUES (?, ?)", notes)
own(Path(DATABASE), 0o600)

(FILES / "forms").mkdir(parents=True, exist_ok=True)
(FILES / "manual.txt").write_text("How to lift an anvil: do not.\n")
(FILES / "forms/holiday.txt").write_text("I would like to be away from ____ to ____.\n")
config = HOME / "config.ini"
config.write_text(f"[site]\ntitle = Acme intranet\n\n[mail]\nuser = intranet\npassword = {secret('mail')}\n")
own(config, 0o400)

safe = HOME / "safe"
shutil.rmtree(safe, ignore_errors=True)
safe.mkdir()
treasure = safe / f"{os.urandom(6).hex()}.txt"  # a name that nobody can guess
treasure.write_text(secret("safe") + "\n")
own(treasure, 0o400)
