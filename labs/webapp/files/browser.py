"""Paula's browser: signs in, looks at the notice board again and again, and does what the page tells it to.

It shows pictures and runs scripts, in duktape, whose language is that of 2011: no arrow functions, no `let`.
Usage: browser.py SITE, with PASSWORD and BADGE in the environment.
"""

import json
import os
import subprocess
import sys
import time
from html.parser import HTMLParser
from http.client import HTTPException
from urllib.parse import quote, urlencode, urljoin
from urllib.request import HTTPRedirectHandler, Request, build_opener

SITE = sys.argv[1]
SECONDS = 15
ASKED_AT_ONCE = 100  # one page cannot keep the browser busy for ever

# What scripts find. Each line that this prints is something to do: ["visit", address] or ["write", html].
WINDOW = """
function tell(what, value) { print(JSON.stringify([what, String(value)])); }
function visit(address) { tell("visit", address); }
var window = this, document = {cookie: %s, write: function (text) { tell("write", text); }};
var place = {get: function () { return %s; }, set: visit};
Object.defineProperty(window, "location", place);
Object.defineProperty(document, "location", place);
function Image() {}
Object.defineProperty(Image.prototype, "src", {set: visit});
function fetch(address) { visit(address); return {then: function () { return this; }}; }
function XMLHttpRequest() {}
XMLHttpRequest.prototype = {open: function (method, address) { this.address = address; },
                            send: function () { visit(this.address); }};
function alert() {}
"""


class Page(HTMLParser):
    """The scripts of a page and the addresses of its pictures, in their order."""

    def __init__(self, text):
        super().__init__()
        self.todo, self.in_script = [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.in_script = tag == "script"
        if tag in ("script", "img", "iframe") and attributes.get("src"):
            self.todo.append(("load" if tag == "script" else "visit", attributes["src"]))
        # a picture of this site's is never there, so what is to be done without it is done
        self.todo.extend(("run", code) for name, code in attrs if name in ("onload", "onerror") and code)

    def handle_endtag(self, _tag):
        self.in_script = False

    def handle_data(self, data):
        if self.in_script:
            self.todo.append(("run", data))


class Stay(HTTPRedirectHandler):
    """Follow nobody elsewhere."""

    def redirect_request(self, *_):
        return None


class Browser:
    def __init__(self):
        self.opener, self.cookies = build_opener(Stay()), {"badge": os.environ["BADGE"]}

    def get(self, address, form=None):
        address = quote(urljoin(f"{SITE}/", address), safe="!#$%&'()*+,/:;=?@[]{}|~")  # blanks, as browsers do
        ours = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        request = Request(address, form and urlencode(form).encode(), ours if address.startswith(f"{SITE}/") else {})
        if request.type not in ("http", "https"):
            raise ValueError(f"no address to visit: {address}")
        with self.opener.open(request, timeout=10) as answer:
            for cookie in answer.headers.get_all("Set-Cookie", ()):
                name, _, value = cookie.partition(";")[0].partition("=")
                self.cookies[name] = value
            return answer.read(1_000_000).decode(errors="replace")

    def run(self, code):
        """What a script wants to be done."""
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        script = f"{WINDOW % (json.dumps(cookies), json.dumps(SITE))}\n{code}\n"
        done = subprocess.run(
            ["duk", "--run-stdin"], input=script.encode(), check=False, capture_output=True, timeout=20
        )
        print(done.stderr.decode(errors="replace"), end="", flush=True)
        lines = done.stdout.decode(errors="replace").splitlines()
        return [tuple(json.loads(line)) for line in lines if line.startswith('["')]

    def show(self, text):
        todo, left = Page(text).todo, ASKED_AT_ONCE
        while todo and left:
            (what, value), *todo = todo
            left -= 1
            try:
                match what:
                    case "run":
                        todo = self.run(value) + todo
                    case "load":
                        todo = self.run(self.get(value)) + todo
                    case "visit":
                        self.get(value)
                    case "write":
                        todo = Page(value).todo + todo
            except (OSError, ValueError, HTTPException, subprocess.SubprocessError) as error:
                print(f"{what}: {error}", flush=True)


browser = Browser()
while True:
    try:
        board = browser.get("/")
        if "Signed in: paula" not in board:
            browser.get("/login", {"name": "paula", "password": os.environ["PASSWORD"]})
            board = browser.get("/")
        browser.show(board)
    except (OSError, ValueError, HTTPException) as error:
        print(error, flush=True)
    time.sleep(SECONDS)
