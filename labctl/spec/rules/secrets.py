"""Secrets: that there are those that machines name, and that what is said of one fits its kind and worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from labctl.spec.problems import Finding, nearest, quoted
from labctl.spec.rules.context import Context
from labctl.spec.secrets import LEAST_LENGTH, can_be_guessed

_FITS: Mapping[str, tuple[str, ...]] = {
    "flag": ("prefix",),
    "password": ("length",),
    "choice": ("of",),
    "port": ("first", "last"),
}


def dangling(context: Context) -> Iterator[Finding]:
    """Names of secrets that the lab does not have."""
    known = [secret.name for secret in context.spec.secrets]
    for machine in context.spec.machines.values():
        for index, name in enumerate(machine.secrets):
            if name not in known:
                keys = ("machines", machine.name, "secrets", index)
                hint = "" if known else "Write secrets: beside machines:, such as {root-flag: {kind: flag}}."
                yield Finding(keys, f"there is no secret {quoted(name)}", nearest=nearest(name, known), hint=hint)


def windows(context: Context) -> Iterator[Finding]:
    """Machines whose steps cannot be told any."""
    for machine in context.spec.machines.values():
        if machine.os == "windows" and machine.secrets:
            keys = ("machines", machine.name, "secrets")
            yield Finding(keys, "steps of a Windows machine cannot be told secrets yet", on_key=True)


def settings(context: Context) -> Iterator[Finding]:
    """Settings of another kind, a choice without words, and ports from high to low."""
    written = context.data.get("secrets", {})
    for secret in context.spec.secrets:
        at = ("secrets", secret.name)
        for key in written[secret.name]:
            if key not in ("kind", "points") and not key.startswith("x-") and key not in _FITS[secret.kind]:
                allowed = ", ".join(_FITS[secret.kind])
                yield Finding((*at, key), f"{key} means nothing for a {secret.kind}", allowed, on_key=True)
        if secret.kind == "choice" and not secret.of:
            yield Finding(at, "a choice needs words to choose from", hint="of: [dragon, letmein, summer2024]")
        if secret.kind == "port" and secret.first > secret.last:
            yield Finding(at, f"no port is from {secret.first} to {secret.last}")
        if secret.points is not None and can_be_guessed(secret):
            hint = f"Points are for flags, and for passwords of {LEAST_LENGTH} characters or more."
            said = f"a {secret.kind} that can be guessed is worth no points"
            yield Finding((*at, "points"), said, hint=hint, on_key=True)
