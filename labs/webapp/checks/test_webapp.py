"""The lab itself, and the ten tasks of its README: five flaws to use, and the same five to mend."""

import html
import re
import secrets
from html.parser import HTMLParser
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest

SITE = "http://10.50.0.10:8080"


def visit(lab, path, session="", form=None, **asked):
    """What the attacker gets: `status`, `text`, and `session` where a new one began. asked: what the address says."""
    words = ["curl", "-sS", "-i", "-m", "50", "-H", f"Cookie: session={session}", f"{SITE}{path}?{urlencode(asked)}"]
    if form is not None:
        words += ["--data", urlencode(form)]
    done = lab.exec("attacker", words)
    assert done.code == 0, f"the intranet is to answer: {done.stderr.decode()}"
    head, _, text = done.stdout.decode().partition("\r\n\r\n")
    begun = re.search(r"(?im)^set-cookie: *session=(\w+)", head)
    return SimpleNamespace(status=int(head.split()[1]), text=text, session=begun[1] if begun else "")


def sign_in(lab, name, password):
    """A new session of somebody who knows the password."""
    session = visit(lab, "/login", form={"name": name, "password": password}).session
    assert session, f"{name} is to get in"
    return session


def collected(lab, name):
    """Whether the student has this flag."""
    return lab.secret(name) in lab.exec("attacker", ["cat", "/root/flags.txt"]).stdout.decode()


class Seen(HTMLParser):
    """What a browser makes of a page: the text that it shows, and the code that it would run or load."""

    def __init__(self, page):
        super().__init__()
        self.text, self.code, self.tag = "", "", ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tag = tag
        self.code += " ".join(value or "" for _, value in attrs)

    def handle_endtag(self, _tag):
        self.tag = ""

    def handle_data(self, data):
        if self.tag in ("script", "style"):
            self.code += data
        else:
            self.text += data


def test_the_intranet_runs_without_rights(machine):
    """The intranet runs, and not as root."""
    assert machine("server").service("intranet").is_running
    pid = machine("server").check_output("systemctl show -P MainPID intranet")
    assert machine("server").check_output("stat -c %%U /proc/%s", pid) == "intranet"


def test_the_student_has_an_account(lab):
    """The student can sign in from the attacker."""
    assert sign_in(lab, "student", "student")


def test_paula_reads_the_board(machine):
    """Paula's browser is open, and can get the notice board."""
    assert machine("desk").service("browser").is_running
    read = f"import urllib.request as u; print(u.urlopen('{SITE}/', timeout=50).status)"
    assert machine("desk").check_output("python3 -c %s", read) == "200"


@pytest.mark.task(2)
def test_licence(lab):
    """The admin's page was read without the admin's password: its licence is in flags.txt."""
    assert collected(lab, "licence")


@pytest.mark.task(2)
def test_mail(lab):
    """A file beside the public ones was read: the mail password is in flags.txt."""
    assert collected(lab, "mail")


@pytest.mark.task(1)
def test_note(lab):
    """Somebody else's note was read: what it says about the safe is in flags.txt."""
    assert collected(lab, "note")


@pytest.mark.task(3)
def test_badge(lab):
    """A script ran in Paula's browser: the badge among her cookies is in flags.txt."""
    assert collected(lab, "badge")


@pytest.mark.task(2)
def test_safe(lab):
    """A command was run on the server: what the folder safe holds is in flags.txt."""
    assert collected(lab, "safe")


@pytest.mark.task(2)
def test_no_sql_from_visitors(lab):
    """Names and words to search for are no SQL; whoever knows a password gets in, and O'Brien is found."""
    sign_in(lab, "student", "student")
    assert not visit(lab, "/login", form={"name": "student", "password": "wrong"}).session
    assert "visits us on Friday" in visit(lab, "/search", q="O'Brien").text
    assert "visits us on Friday" not in visit(lab, "/search", q="no such words").text
    for name in ("admin' -- ", "' OR 1=1 -- ", "admin' OR 'a'='a"):
        assert not visit(lab, "/login", form={"name": name, "password": "x"}).session, f"{name} gets in"
    stolen = lab.secret("licence") in visit(lab, "/search", q="' UNION SELECT name, value FROM settings -- ").text
    assert not stolen, "a search tells the licence"


@pytest.mark.task(2)
def test_public_files_only(lab):
    """Downloads are the public files, those in folders too, and no others."""
    assert "How to lift an anvil" in visit(lab, "/download", name="manual.txt").text
    assert "I would like to be away" in visit(lab, "/download", name="forms/holiday.txt").text
    for name in ("../config.ini", "forms/../../config.ini", "/srv/intranet/config.ini", "....//config.ini"):
        given_away = lab.secret("mail") in visit(lab, "/download", name=name).text
        assert not given_away, name


@pytest.mark.task(2)
def test_ones_own_notes_only(lab):
    """Everybody can read notes of their own, and nobody else's."""
    paula, student = sign_in(lab, "paula", lab.secret("paula")), sign_in(lab, "student", "student")
    text = f"written by a check: {secrets.token_hex(8)}"
    visit(lab, "/notes", student, form={"text": text})

    def can_read(session, words, numbers):
        return any(words in visit(lab, "/note", session, id=number).text for number in numbers)

    hers, own = (re.findall(r'/note\?id=(\w+)"', visit(lab, "/notes", who).text) for who in (paula, student))
    flag = lab.secret("note")
    by_paula, by_the_student, by_anybody = (can_read(who, flag, hers) for who in (paula, student, ""))
    assert by_paula, "Paula is to read her notes"
    assert can_read(student, text, own[::-1]), "the student is to read a new note"
    assert (by_the_student, by_anybody) == (False, False)


@pytest.mark.task(2)
def test_notices_are_text(lab):
    """Notices are shown as they were written, and nothing in them runs."""
    mark = f"x{secrets.token_hex(8)}"
    honest = f'{mark}: is 5 < 7 & 7 > 5? "Yes", I\'d say.'
    visit(lab, "/", form={"text": honest})
    for code in ("<script>%s</script>", "<ScRiPt >%s</ScRiPt>", "<img src=x onerror=%s>", "<svg/onload=%s>"):
        visit(lab, "/", form={"text": code % mark})
    for page in (visit(lab, "/"), visit(lab, "/search", q=mark)):
        seen = Seen(page.text)
        assert honest in seen.text, "what was written is to be shown"
        assert mark not in seen.code, "what was written runs"


@pytest.mark.task(2)
def test_ping_only_pings(lab):
    """The network test reaches machines by address and by name, and runs no other command."""
    student = sign_in(lab, "student", "student")
    for host in ("10.50.0.66", "desk"):
        assert "1 received" in visit(lab, "/ping", student, host=host).text, f"{host} is to answer"
    run = "echo ran$((6*7))"
    for end in (f"; {run}", f"| {run}", f"&& {run}", f"& {run}", f"\n{run}", f"$({run})", f"`{run}`"):
        shown = visit(lab, "/ping", student, host=f"10.50.0.66{end}").text
        assert "ran42" not in html.unescape(shown), f"{end!r} is run"
