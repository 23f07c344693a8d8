"""Secrets: reproducible from their seed, independent of each other, as their kind says."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from labctl.spec.model import SecretSpec
from labctl.spec.secrets import (
    can_be_guessed,
    mask,
    new_seed,
    proofs,
    proves,
    same_holder,
    seed_in,
    seed_of,
    token,
    values,
)

pytestmark = pytest.mark.unit

FLAG = SecretSpec("flag", "flag", prefix="ACME")
WANTED = (
    FLAG,
    SecretSpec("password", "password", length=12),
    SecretSpec("choice", "choice", of=("dragon", "letmein", "summer")),
    SecretSpec("port", "port", first=20000, last=20003),
)


def test_a_seed_gives_the_same_values_wherever_it_is() -> None:
    """Written down once: a labctl that gives others would make a teacher's answer sheet wrong."""
    assert values("0" * 64, "lab", WANTED) == {
        "flag": "ACME{ktmcykuq2twrjqia2omxe1cc}",
        "password": "XiD9vvcRvauc",
        "choice": "dragon",
        "port": "20000",
    }


def test_values_look_as_their_kind_says() -> None:
    for _ in range(50):
        made = values(new_seed(), "lab", WANTED)
        assert re.fullmatch(r"ACME\{[a-z0-9]{24}\}", made["flag"])
        assert re.fullmatch(r"[A-HJ-NP-Za-km-z2-9]{12}", made["password"])
        assert made["choice"] in WANTED[2].of
        assert 20000 <= int(made["port"]) <= 20003


def test_every_choice_and_port_is_given_to_somebody() -> None:
    made = [values(seed_of("k" * 32, f"s{n:02}"), "lab", WANTED) for n in range(100)]
    assert {one["choice"] for one in made} == set(WANTED[2].of)
    assert {one["port"] for one in made} == {"20000", "20001", "20002", "20003"}


def test_holders_labs_and_names_have_values_of_their_own() -> None:
    seeds = [seed_of("k" * 32, holder) for holder in ("s01", "s02", "s0")] + [seed_of("K" * 32, "s01")]
    names = [FLAG, SecretSpec("flags", "flag", prefix="ACME")]
    made = [value for seed in seeds for lab in ("lab", "la") for value in values(seed, lab, names).values()]
    assert len(set(made)) == len(made) == 16


def test_settings_of_one_secret_do_not_change_another() -> None:
    alone = values("s" * 64, "lab", [FLAG])
    assert values("s" * 64, "lab", WANTED)["flag"] == alone["flag"]


def test_secrets_are_masked_longest_first_where_they_can_be_told_from_other_words() -> None:
    known = {"word": "drag", "longer": "dragon", "port": "80"}
    assert mask(b"a dragon drags 80", known) == b"a <longer> <word>s 80"


def test_a_proof_tells_right_from_wrong_and_says_nothing_else() -> None:
    """Written down once: files that have been handed out must go on being right."""
    known, made = values("0" * 64, "lab", WANTED), proofs("0" * 64, "lab", [FLAG])
    salt, digest = (
        "e0e0e6c059173052bb4ff7328c746ff7",
        "b78401e2f210b0c7f17b40731ff1cfd207b138928697f2592201b3c375433554",
    )
    assert made == {"flag": f"{salt}:{digest}"}
    assert proves(made["flag"], "flag", known["flag"])
    for text in ("", known["flag"] + " ", known["flag"].upper(), known["password"], made["flag"], "\udc80"):
        assert not proves(made["flag"], "flag", text)
    assert not proves(made["flag"], "other", known["flag"])


def test_equal_secrets_of_two_holders_have_proofs_that_show_nothing_of_it() -> None:
    made = [proofs(seed_of("k" * 32, f"s{number}"), "lab", [FLAG])["flag"].split(":") for number in range(9)]
    assert len({salt for salt, _ in made}) == len({digest for _, digest in made}) == 9


@pytest.mark.parametrize(
    ("secret", "guessed"),
    [
        (FLAG, False),
        (SecretSpec("x", "password"), False),
        (SecretSpec("x", "password", length=14), False),
        (SecretSpec("x", "password", length=13), True),
        (SecretSpec("x", "choice", of=tuple(map(str, range(1000)))), True),
        (SecretSpec("x", "port"), True),
    ],
)
def test_what_could_be_tried_has_no_proof(secret: SecretSpec, guessed: bool) -> None:
    assert can_be_guessed(secret) is guessed
    assert list(proofs("s" * 64, "lab", [secret])) == [] if guessed else [secret.name]


SEED = seed_of("k" * 64, "s01")


def test_a_token_is_the_same_wherever_it_is_made() -> None:
    """Written down once: handouts that are on paper must go on being right."""
    assert token(SEED, "lab") == "y6g7-yzpj-gxw2-xlno-pd7u-anfs"
    assert seed_in(token(SEED, "lab"), "lab") == SEED


@pytest.mark.parametrize("typed", [str.upper, lambda t: t.replace("-", ""), lambda t: f" {t.replace('-', ' ')}\n"])
def test_a_token_may_be_typed_as_people_type(typed: Callable[[str], str]) -> None:
    assert seed_in(typed(token(SEED, "lab")), "lab") == SEED


def test_letters_that_look_like_digits_may_be_taken_for_them() -> None:
    for number in range(50):
        seed = seed_of("k" * 64, f"s{number}")
        assert seed_in(token(seed, "lab").translate(str.maketrans("olb", "018")), "lab") == seed


def test_a_slip_in_a_token_is_noticed() -> None:
    right = token(SEED, "lab")
    slips = [right[:at] + ("a" if right[at] != "a" else "c") + right[at + 1 :] for at in range(len(right))]
    slips = [slip for slip in slips if slip.count("-") == right.count("-")]
    assert len(slips) == 24
    for typed in (*slips, right[:-1], right + "a", "", "-", "é" * 24, "\udc80" * 24, right[5:], SEED):
        assert seed_in(typed, "lab") == ""


def test_a_token_of_another_lab_is_none_of_this_one() -> None:
    assert seed_in(token(SEED, "lab"), "la") == ""


def test_two_proofs_show_whether_they_are_of_one_holder() -> None:
    mine, other = (proofs(seed_of("k" * 64, who), "lab", [FLAG]) for who in ("s01", "s02"))
    renamed = proofs(SEED, "lab", [SecretSpec("other", "flag")])
    assert same_holder(mine, renamed)
    assert not same_holder(mine, other)
    assert same_holder(mine, {})
