"""Values that each instance has its own of, made from a seed: the same seed gives the same values, on any computer.

Whoever has the seed has them all; without it none tells anything about another (HMAC-SHA256, RFC 2104).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from collections.abc import Iterable, Mapping

from labctl.spec.model import SecretSpec

_LETTERS = "".join(c for c in string.ascii_letters + string.digits if c not in "0O1lI")  # those that people confuse
_FLAG_LETTERS = string.ascii_lowercase + string.digits
_FLAG_LENGTH = 24
_TOKEN_LETTERS = string.ascii_lowercase + "234567"  # RFC 4648, base32
_SEED_LENGTH, _CHECK_LENGTH = 20, 4
_MISREAD = str.maketrans("018", "olb")
_MASKED_LENGTH = 4
LEAST_LENGTH = 14
"""Characters of a password that nobody guesses: 2^81 of them. Of flags there are 2^124."""


def new_seed() -> str:
    """A seed that nobody can guess, as text."""
    return secrets.token_hex(32)


def seed_of(seed: str, holder: str) -> str:
    """One holder's own seed, from that of all: short enough to be typed, and one of 2^100."""
    return _word(int.from_bytes(_bytes(seed, "seed", holder)), _TOKEN_LETTERS, _SEED_LENGTH)


def token(seed: str, lab: str) -> str:
    """A holder's seed as it stands on paper: with letters that show a slip of the pen and belong to the lab alone."""
    whole = seed + _word(int.from_bytes(_bytes(seed, "token", lab)), _TOKEN_LETTERS, _CHECK_LENGTH)
    return "-".join(whole[at : at + 4] for at in range(0, len(whole), 4))


def seed_in(text: str, lab: str) -> str:
    """The seed in what somebody has typed as a token of a lab's; ``""`` where it is none."""
    typed = "".join(c for c in text.lower() if c not in "- \t\r\n").translate(_MISREAD)
    seed = typed[:_SEED_LENGTH]
    if not set(typed) <= set(_TOKEN_LETTERS):
        return ""
    return seed if hmac.compare_digest(token(seed, lab).replace("-", ""), typed) else ""


def values(seed: str, lab: str, wanted: Iterable[SecretSpec]) -> dict[str, str]:
    """Every secret of a lab by its name."""
    return {secret.name: _value(seed, lab, secret) for secret in wanted}


def can_be_guessed(secret: SecretSpec) -> bool:
    """Whether trying all values is no trouble: then neither a digest of it nor a right answer shows anything."""
    return not (secret.kind == "flag" or (secret.kind == "password" and secret.length >= LEAST_LENGTH))


def proofs(seed: str, lab: str, wanted: Iterable[SecretSpec]) -> dict[str, str]:
    """By name what tells a right answer from a wrong one and holds none: ``SALT:DIGEST``, of those nobody can guess.

    The salt is the holder's own. The digest may be quick to make (HMAC-SHA256): it is not to protect what can be tried.
    """
    salt = _bytes(seed, "salt", lab)[:16].hex()
    kept = [secret for secret in wanted if not can_be_guessed(secret)]
    return {name: f"{salt}:{_digest(salt, name, value)}" for name, value in values(seed, lab, kept).items()}


def proves(proof: str, name: str, text: str) -> bool:
    """Whether a text is the secret that a proof is of."""
    salt, _, digest = proof.partition(":")
    return hmac.compare_digest(digest, _digest(salt, name, text))


def same_holder(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two lists of proofs are of one holder, though maybe of other secrets."""
    return not one or not other or _salts(one) == _salts(other)


def _salts(known: Mapping[str, str]) -> set[str]:
    return {proof.partition(":")[0] for proof in known.values()}


def _digest(salt: str, name: str, text: str) -> str:
    return hmac.digest(salt.encode(), f"labctl proof 1\0{name}\0{text}".encode(errors="replace"), hashlib.sha256).hex()


def mask(text: bytes, known: Mapping[str, str]) -> bytes:
    """A text in which secrets are replaced by their names; values too short to be told from other words stay."""
    for name, value in sorted(known.items(), key=lambda item: -len(item[1])):
        if len(value) >= _MASKED_LENGTH:
            text = text.replace(value.encode(), f"<{name}>".encode())
    return text


def _value(seed: str, lab: str, secret: SecretSpec) -> str:
    number = int.from_bytes(_bytes(seed, "value", lab, secret.name))  # 512 bits: what it is divided by does not show
    match secret.kind:
        case "flag":
            return f"{secret.prefix}{{{_word(number, _FLAG_LETTERS, _FLAG_LENGTH)}}}"
        case "password":
            return _word(number, _LETTERS, secret.length)
        case "choice":
            return secret.of[number % len(secret.of)]
        case "port":
            return str(secret.first + number % (secret.last - secret.first + 1))


def _word(number: int, letters: str, length: int) -> str:
    word = ""
    for _ in range(length):
        number, index = divmod(number, len(letters))
        word += letters[index]
    return word


def _bytes(seed: str, *words: str) -> bytes:
    """64 bytes for these words; no two lists of words give the same message."""
    message = b"labctl secrets 1" + b"".join(b"\0" + word.encode() for word in words)
    return hmac.digest(seed.encode(), message, hashlib.sha512)
