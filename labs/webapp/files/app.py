"""Acme's intranet: a notice board, notes, files and a network test.

Five flaws are in it on purpose. Run it nowhere but in the lab.
"""

import hashlib
import html
import secrets
import sqlite3
import subprocess
from configparser import ConfigParser
from contextlib import closing
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

HOME = Path("/srv/intranet")
DATABASE = "/var/lib/intranet/intranet.db"
FILES = HOME / "files"
SESSIONS = {}  # token to name; gone when the service is restarted

CONFIG = ConfigParser(interpolation=None)
CONFIG.read(HOME / "config.ini")

LINKS = """<nav><a href="/">board</a> <a href="/notes">notes</a> <a href="/files">files</a>
<a href="/ping">network test</a> <a href="/admin">admin</a> <a href="/login">sign in</a></nav>"""


def query(sql, *values):
    """Run one statement; give its rows."""
    with closing(sqlite3.connect(DATABASE, timeout=10)) as connection, connection:
        return connection.execute(sql, values).fetchall()


def digest(name, password):
    """What is kept of a password."""
    return hashlib.scrypt(password.encode(), salt=name.encode(), n=2**10, r=8, p=1).hex()


def form(action, *names, method="post"):
    """A form with a field for each name."""
    fields = "".join(f'<label>{name} <input name="{name}"></label> ' for name in names)
    return f'<form action="{action}" method="{method}">{fields}<button>send</button></form>'


def notices(rows):
    """Notices of the board as a list."""
    lines = [f"<li><b>{html.escape(author)}</b>: {text}</li>" for author, text in rows]
    return f"<ul>{''.join(lines)}</ul>"


class RefusedError(Exception):
    """An answer that is no page: its status and why."""


class Intranet(BaseHTTPRequestHandler):
    """One request. `asked` has what the address or the form says, `user` who is signed in, `token` a new session's."""

    def do_GET(self):
        self.answer("GET", parse_qs(urlsplit(self.path).query))

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer("POST", parse_qs(body.decode()))

    def answer(self, method, asked):
        self.asked = {name: values[0] for name, values in asked.items()}
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("session")
        self.user, self.token = SESSIONS.get(cookie.value, "") if cookie else "", ""
        page = PAGES.get((method, urlsplit(self.path).path))
        try:
            if page is None:
                raise RefusedError(404, "There is no such page.")
            body = page(self)
        except RefusedError as refusal:
            status, why = refusal.args
            self.send(status, f"<p>{html.escape(why)}</p>")
        except (OSError, ValueError, sqlite3.Error, subprocess.SubprocessError) as error:
            self.send(500, f"<p>{html.escape(repr(error))}</p>")
        else:
            self.send(200, body) if isinstance(body, str) else self.send(200, body, "application/octet-stream")

    def send(self, status, body, kind="text/html; charset=utf-8"):
        if isinstance(body, str):
            title = html.escape(CONFIG["site"]["title"])
            user = html.escape(self.user) or "nobody"
            page = f"<!doctype html><title>{title}</title><h1>{title}</h1>{LINKS}<p>Signed in: {user}</p>{body}"
            body = page.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.token:
            self.send_header("Set-Cookie", f"session={self.token}; Path=/")
        self.end_headers()
        self.wfile.write(body)

    def signed_in(self):
        if not self.user:
            raise RefusedError(403, "Sign in first.")

    # the notice board

    def board(self):
        newest = query("SELECT author, text FROM notices ORDER BY id DESC LIMIT 100")
        return form("/search", "q", method="get") + form("/", "text") + notices(newest)

    def search(self):
        words = self.asked.get("q", "")
        found = query(f"SELECT author, text FROM notices WHERE text LIKE '%{words}%'")
        return f"<p>Notices with {html.escape(words)}:</p>" + notices(found)

    def post(self):
        query("INSERT INTO notices (author, text) VALUES (?, ?)", self.user or "guest", self.asked.get("text", ""))
        return self.board()

    # who is who

    def login_form(self):
        return form("/login", "name", "password")

    def login(self):
        name, password = self.asked.get("name", ""), self.asked.get("password", "")
        rows = query(f"SELECT name FROM users WHERE name = '{name}' AND password = '{digest(name, password)}'")
        if not rows:
            raise RefusedError(403, "Wrong name or password.")
        self.user, self.token = rows[0][0], secrets.token_hex(16)
        SESSIONS[self.token] = self.user
        return "<p>Welcome.</p>"

    def admin(self):
        if self.user != "admin":
            raise RefusedError(403, "For admin only.")
        names = ", ".join(html.escape(name) for (name,) in query("SELECT name FROM users"))
        ((licence,),) = query("SELECT value FROM settings WHERE name = 'licence'")
        return f"<p>Users: {names}</p><p>Licence: {html.escape(licence)}</p>"

    # notes of one's own

    def notes(self):
        self.signed_in()
        own = query("SELECT id FROM notes WHERE owner = ?", self.user)
        return form("/notes", "text") + " ".join(f'<a href="/note?id={number}">note {number}</a>' for (number,) in own)

    def keep(self):
        self.signed_in()
        query("INSERT INTO notes (owner, text) VALUES (?, ?)", self.user, self.asked.get("text", ""))
        return self.notes()

    def note(self):
        self.signed_in()
        rows = query("SELECT text FROM notes WHERE id = ?", self.asked.get("id", ""))
        if not rows:
            raise RefusedError(404, "There is no such note.")
        return f"<pre>{html.escape(rows[0][0])}</pre>"

    # files for everybody

    def files(self):
        names = sorted(path.relative_to(FILES).as_posix() for path in FILES.rglob("*") if path.is_file())
        return "<br>".join(f'<a href="/download?name={name}">{name}</a>' for name in names)

    def download(self):
        return (FILES / self.asked.get("name", "")).read_bytes()

    # is a machine there?

    def ping(self):
        self.signed_in()
        host = self.asked.get("host", "")
        if not host:
            return form("/ping", "host", method="get")
        command = f"ping -c 1 -W 5 {host}"
        done = subprocess.run(command, shell=True, check=False, capture_output=True, timeout=60)
        said = (done.stdout + done.stderr).decode(errors="replace")
        return f"<pre>{html.escape(said)}</pre>"


PAGES = {
    ("GET", "/"): Intranet.board,
    ("POST", "/"): Intranet.post,
    ("GET", "/search"): Intranet.search,
    ("GET", "/login"): Intranet.login_form,
    ("POST", "/login"): Intranet.login,
    ("GET", "/admin"): Intranet.admin,
    ("GET", "/notes"): Intranet.notes,
    ("POST", "/notes"): Intranet.keep,
    ("GET", "/note"): Intranet.note,
    ("GET", "/files"): Intranet.files,
    ("GET", "/download"): Intranet.download,
    ("GET", "/ping"): Intranet.ping,
}


if __name__ == "__main__":
    ThreadingHTTPServer(("", 8080), Intranet).serve_forever()
