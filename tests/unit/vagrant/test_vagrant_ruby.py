"""Values as Ruby source, and a template environment in which a forgotten filter is an error."""

from __future__ import annotations

import jinja2
import pytest

from labctl.errors import UsageError
from labctl.providers.vagrant import ruby

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("value", "source"),
    [
        (None, "nil"),
        (True, "true"),
        (False, "false"),
        (12, "12"),
        ("web", "'web'"),
        ("it's", r"'it\'s'"),
        ("a\\", r"'a\\'"),
        ("\\'", r"'\\\''"),
        ("#{`id`} \n\t%q(x)", "'#{`id`} \n\t%q(x)'"),
        (ruby.Symbol("id"), ":id"),
        (["modifyvm", ruby.Symbol("id"), 1], "['modifyvm', :id, 1]"),
        ((), "[]"),
        ({"name": "web", "size": [1]}, "{name: 'web', size: [1]}"),
    ],
)
def test_a_value_becomes_one_literal(value: object, source: str) -> None:
    assert ruby.literal(value) == source


@pytest.mark.parametrize("text", ["\0", "a\r\nb", "\x1b[31m", "\ud800"])
def test_a_text_that_ruby_would_change_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"U\+[0-9A-F]{4}"):
        ruby.literal(text)


@pytest.mark.parametrize("value", [1.5, object(), {1, 2}, b"x"])
def test_what_has_no_literal_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        ruby.literal(value)


@pytest.mark.parametrize("key", ["a b", "a: 1, b", "A", "", "a'"])
def test_a_key_that_is_no_keyword_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="keyword"):
        ruby.options({key: 1})


@pytest.mark.parametrize("text", ["dmz", "203.0.113.66/24", "fd00:10::5/64", "eth0"])
def test_names_and_addresses_may_stand_in_comments(text: str) -> None:
    assert ruby.comment(text) == text


@pytest.mark.parametrize("text", ["", "a\nsystem('x')", "a\rb", "#{x}", "-*- coding: x -*-", "a\u2028b", "'"])
def test_other_texts_may_not(text: str) -> None:
    with pytest.raises(UsageError):
        ruby.comment(text)


@pytest.mark.parametrize(
    "template", ["{{ x }}", "{{ x | upper }}", "{{ (x | ruby) ~ '' }}", "{{ x | ruby | trim }}", "{{ 1 }}"]
)
def test_a_value_without_a_filter_never_reaches_the_output(template: str) -> None:
    with pytest.raises(TypeError, match="without passing a filter"):
        ruby.environment().from_string(template).render(x="system 'id'")


@pytest.mark.parametrize("template", ["{{ y }}", "{{ x.y | ruby }}", "{% if y %}{% endif %}"])
def test_a_misspelt_value_is_an_error(template: str) -> None:
    with pytest.raises((jinja2.UndefinedError, TypeError)):
        ruby.environment().from_string(template).render(x={})
