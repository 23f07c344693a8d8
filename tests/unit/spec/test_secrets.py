"""Secrets: reproducible from their seed, independent of each other, as their kind says."""

from __future__ import annotations

import re

import pytest

from labctl.spec.model import SecretSpec
from labctl.spec.secrets import mask, new_seed, seed_of, values

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
