"""A plan as JSON and back. Complete, in a stable order; what comes back is equal to what went in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from labctl.errors import StateError
from labctl.plan.model import PLAN_VERSION, LabPlan

_Decoder = Callable[[Any], Any]
_ADDRESSES = (IPv4Address, IPv6Address, IPv4Interface, IPv6Interface, IPv4Network, IPv6Network)
_PLAIN = (str, int, float, bool)


def to_json(plan: LabPlan) -> dict[str, Any]:
    """The whole plan as values that ``json`` can write: records as objects, addresses as text, tuples as lists."""
    encoded: dict[str, Any] = _encode(plan)
    return encoded


def from_json(data: Mapping[str, Any]) -> LabPlan:
    """The plan that ``to_json`` was given. Raises StateError for a plan of another version or a damaged one."""
    version = data.get("version")
    if version != PLAN_VERSION:
        raise StateError(
            f"this plan has version {version!r}; this labctl reads version {PLAN_VERSION}",
            hint="Use the labctl that made it, or destroy the instance with that one first.",
        )
    try:
        plan: LabPlan = _decoder(LabPlan)(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"the plan is damaged: {error!r}") from error
    return plan


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, _PLAIN):
        return value
    if is_dataclass(value):
        return {name: _encode(getattr(value, name)) for name in _names(value.__class__)}
    if isinstance(value, _ADDRESSES):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    return [_encode(item) for item in value]


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


@cache
def _decoder(kind: Any) -> _Decoder:
    """How to read a value of a type; the types of LabPlan and what it is made of are all there is."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _union(arguments)
    if origin is tuple:
        return _tuple(arguments)
    if is_dataclass(kind):
        return _record(kind)
    if kind in _ADDRESSES:
        read_address: _Decoder = kind
        return read_address
    if kind is Any or kind in _PLAIN or origin in (Literal, Mapping) or _is_mapping(origin):
        return _same
    raise TypeError(f"a plan cannot hold {kind}")


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _same(value: Any) -> Any:
    return value


def _record(kind: Any) -> _Decoder:
    hints = get_type_hints(kind)
    readers = [(name, _decoder(hints[name])) for name in _names(kind)]
    may_lack = {f.name for f in fields(kind) if f.default is not MISSING or f.default_factory is not MISSING}

    def read(value: Any) -> Any:  # an earlier labctl's plan lacks fields that have come since
        return kind(**{name: reader(value[name]) for name, reader in readers if name in value or name not in may_lack})

    return read


def _tuple(arguments: tuple[Any, ...]) -> _Decoder:
    if arguments[-1] is Ellipsis:
        item = _decoder(arguments[0])
        return lambda value: tuple(map(item, value))
    items = [_decoder(argument) for argument in arguments]
    return lambda value: tuple(read(part) for read, part in zip(items, value, strict=True))


def _union(members: tuple[Any, ...]) -> _Decoder:
    """X or None; an address or network of either family; or records, told apart by their fields."""
    kinds = tuple(member for member in members if member is not NoneType)
    if len(kinds) == 1:
        one = _decoder(kinds[0])
        return lambda value: None if value is None else one(value)
    if set(kinds) == {IPv4Address, IPv6Address}:
        return ip_address
    if set(kinds) == {IPv4Network, IPv6Network}:
        return ip_network
    by_fields = {frozenset(_names(kind)): _decoder(kind) for kind in kinds}
    return lambda value: by_fields[frozenset(value)](value)
