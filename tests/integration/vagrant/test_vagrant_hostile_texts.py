"""Nothing from a lab can become Ruby: real Ruby reads Vagrantfiles with hostile texts in every field that takes one.

Its tokens must be those of a harmless lab but for the contents of string literals, and each literal must mean exactly
the text that went in.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labctl.plan.build import build
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.base import BootImage
from labctl.providers.vagrant import BACKENDS
from labctl.spec.load import load
from labctl.spec.model import DiskSpec, FileStep, ScriptStep, ShellStep, UserSpec, WinRMSpec

pytestmark = pytest.mark.integration

LABS = Path(__file__).resolve().parents[2] / "golden/vagrant"

HARMLESS = "harmless"
HOSTILE = [
    "'",
    "\\",
    "\\'",
    "'; system('touch owned'); '",
    '"#{system(%q(touch owned))}"',
    "#{`touch owned`}",
    "#@owned #$owned",
    "$(touch owned) `touch owned`",
    "%q{x} %w[x] %x(touch owned)",
    "end\nend\nsystem 'touch owned'\n",
    "\n__END__\n",
    "\n=begin\nx\n=end\n",
    "EOS\nEOF\nEND\n<<~RUBY\nRUBY\n",
    "{{ x }} {% raw %} {# x #}",
    "../../etc/passwd",
    "ünïcødé ☃ \u2028 \u2029 \u202e 日本 \U0001f600",
    "a\tb",
    " ",
    "?a :sym => 1 ; # comment",
    "\\u0027 \\x27 \\047",
]

# Of each source: tokens without positions, neighbouring pieces of one literal joined and left empty; and what the
# literals mean.
RUBY = r"""
require 'json'
require 'ripper'
results = JSON.parse(STDIN.read).map do |source|
  next {error: 'this is not Ruby'} if Ripper.sexp(source).nil?
  tokens = Ripper.lex(source).map { |_, type, text, _| type == :on_tstring_content ? [type, ''] : [type, text] }
  tokens = tokens.chunk_while { |a, b| a == b && a[0] == :on_tstring_content }.map(&:first)
  texts = []
  walk = lambda do |node|
    next unless node.is_a?(RubyVM::AbstractSyntaxTree::Node)
    texts << node.children.first if node.type == :STR
    node.children.each(&walk)
  end
  walk.call(RubyVM::AbstractSyntaxTree.parse(source))
  {tokens: tokens, texts: texts}
end
puts JSON.generate(results)
"""


def read_by_ruby(*sources: str) -> list[dict[str, Any]]:
    ruby = shutil.which("ruby")
    assert ruby, "Ruby is not installed; make setup installs it (Debian: apt install ruby)"
    asked = json.dumps(sources).encode()
    done = subprocess.run([ruby, "-e", RUBY], input=asked, capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def filled(plan: LabPlan, text: str) -> LabPlan:
    """The plan with a text in every field of a machine or setting that can hold free text."""
    return replace(
        plan,
        description=text,
        machines=tuple(_filled(machine, text) for machine in plan.machines),
        settings={"libvirt": {"driver": text}},
    )


def _filled(machine: MachinePlan, text: str) -> MachinePlan:
    windows = machine.os == "windows"
    steps = (FileStep(f"/{text}", content=text, mode=text, owner=text), ShellStep(text), ScriptStep("x", (text,)))
    return replace(
        machine,
        image=text.replace("/", "_"),
        description=text,
        packages=() if windows else (text,),
        steps=(
            *steps,
            FileStep(f"/{text}", source=f"f/{text.replace('..', 'x').replace(':', 'x')}".replace("\\", "x")),
        ),
        hosts=((text, (text,)),),
        users=(UserSpec("student", password=text.replace("\n", " "), shell=text, keys=(text,)),),
        disks=(DiskSpec(text, 1 << 30),),
        winrm=WinRMSpec(username=text, password=text) if windows else None,
        settings={"libvirt": {"cpu_mode": text}},
    )


def vagrantfile(plan: LabPlan, provider: str, text: str) -> Mapping[str, str]:
    backend = next(backend for backend in BACKENDS if backend.name == provider)
    image = BootImage("x", text, Path("/cache") / f"{text.replace('/', '_')}.box", user=text)
    return backend.render(plan, {plan.machines[0].name: image})


PROVIDERS = {"virtualbox": "plain", "libvirt": "plain", "vmware_desktop": "plain", "hyperv": "alone"}


@pytest.fixture(scope="module", params=PROVIDERS)
def read(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """Each text to what Ruby makes of a Vagrantfile that is full of it."""
    plan = build(load(LABS / PROVIDERS[request.param] / "lab.yaml"), provider=request.param)
    plan = replace(plan, seal=request.param in ("vmware_desktop", "hyperv"))
    texts = [HARMLESS, *HOSTILE]
    rendered = [vagrantfile(filled(plan, text), request.param, text) for text in texts]
    assert len({tuple(files) for files in rendered}) == 1, "names of files come from names of machines alone"
    return dict(zip(texts, read_by_ruby(*(files["Vagrantfile"] for files in rendered)), strict=True))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_is_a_text(read: dict[str, dict[str, Any]], text: str) -> None:
    expected, found = read[HARMLESS], read[text]
    assert found.get("tokens") == expected["tokens"]
    places = [n for n, was in enumerate(expected["texts"]) if HARMLESS in was]
    changed = [n for n, was in enumerate(expected["texts"]) if was != found["texts"][n]]
    assert places == changed != []
    assert {found["texts"][n] for n in places if expected["texts"][n] == HARMLESS} == {text}


def test_the_check_sees_a_text_that_got_out() -> None:
    expected, more, comment, live, broken, escaped = read_by_ruby(
        "a = 'harmless'\n", "a = 'x'; system('x')\n", "a = 'x' # x\n", 'a = "#{x}"\n', "a = 'x\n", r"a = 'it\'s \\'"
    )
    assert all(found.get("tokens") != expected["tokens"] for found in (more, comment, live, broken))
    assert escaped["texts"] == ["it's \\"]
