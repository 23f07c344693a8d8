"""Who heard whom: from what the NICs of a lab heard to verdicts over its wires. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address

from labctl.plan.model import LabPlan
from labctl.verify.errands import Errands, Nic, Routed, Sent, Unicast
from labctl.verify.model import Control, Evidence, Finding, FindingKind, ProbedFlow, Verdict, verdict

_IPV6 = 0x86DD  # EtherType
_WORDS = {
    "plain": "a frame of {0}",
    "forged-mac": "a frame of {0} with a forged source address",
    "vlan": "a VLAN-tagged frame of {0}",
    "router-advertisement": "a router advertisement of {0}",
    "unicast": "a frame of {0} for somebody else",
    "spoofed-source": "a packet of {0} with a borrowed source address",
    "source-port": "a packet of {0} from the port of an answer",
    "relay": "a packet of {0} for another network",
}


@dataclass(frozen=True, slots=True)
class Overheard:
    """What a guest says that its NICs heard and sent, by planned device; each a set of facts without order.

    frames: (device, nonce) that came in. own: (device, nonce) that went out. sources: (device, MAC address, EtherType)
    of who sent anything. claims: (device, address, MAC address): who answered for which address.
    """

    frames: frozenset[tuple[str, str]] = frozenset()
    own: frozenset[tuple[str, str]] = frozenset()
    sources: frozenset[tuple[str, str, int]] = frozenset()
    claims: frozenset[tuple[str, str, str]] = frozenset()


@dataclass(frozen=True)
class Ears:
    """All that was heard on the wires.

    heard: by machine; one that is missing could not be asked, and ``troubles`` says why. sound and unplugged: (machine,
    device), as in ``judge.Heard``. switched: whether the engine promises that a NIC hears its own unicast alone.
    """

    plan: LabPlan
    todo: Errands
    heard: Mapping[str, Overheard]
    troubles: Mapping[str, str]
    sound: Collection[tuple[str, str]]
    unplugged: Collection[tuple[str, str]]
    switched: bool
    _nobody: Overheard = field(default_factory=Overheard)

    def flows(self) -> tuple[ProbedFlow, ...]:
        """One verdict for every NIC as heard by every NIC of another machine, then for every routed trick."""
        pairs = ((a, b) for a in self.todo.nics for b in self.todo.nics if a.machine != b.machine)
        return (
            *(self._pair(a, b) for a, b in pairs),
            *(self._trick(one) for one in self.todo.sent if isinstance(one, Routed)),
        )

    def findings(self) -> tuple[Finding, ...]:
        """Strangers, false claims, and NICs that hear too much or too little."""
        return tuple(dict.fromkeys((*self._strangers(), *self._claims(), *self._listening())))

    # --- frames ---

    @cached_property
    def _heard_at(self) -> Mapping[tuple[str, str], tuple[Sent, ...]]:
        """Frames of other machines that came in, by place."""
        found: dict[tuple[str, str], list[Sent]] = defaultdict(list)
        for machine, ears in self.heard.items():
            for device, nonce in sorted(ears.frames):
                sent = self.todo.by_nonce.get(nonce)
                if sent is not None and sent.nic.machine != machine:
                    found[machine, device].append(sent)
        return {place: tuple(them) for place, them in found.items()}

    @cached_property
    def _hearers(self) -> Mapping[tuple[str, str], tuple[Nic, ...]]:
        """By place of the sender: the NICs that heard its plain frame and may."""
        found: dict[tuple[str, str], list[Nic]] = defaultdict(list)
        for nic in self.todo.nics:
            for sent in self._heard_at.get(nic.place, ()):
                if sent.trick == "plain" and nic.meets(sent.nic):
                    found[sent.nic.place].append(nic)
        return {place: tuple(them) for place, them in found.items()}

    @cached_property
    def _between(self) -> Mapping[tuple[tuple[str, str], tuple[str, str]], tuple[Sent, ...]]:
        """By places of sender and hearer: the frames (not packets for routers) that came from one to the other."""
        found: dict[tuple[tuple[str, str], tuple[str, str]], list[Sent]] = defaultdict(list)
        for place, them in self._heard_at.items():
            for sent in them:
                if not isinstance(sent, Routed):
                    found[sent.nic.place, place].append(sent)
        return {pair: tuple(them) for pair, them in found.items()}

    def _pair(self, source: Nic, target: Nic) -> ProbedFlow:
        passes = source.meets(target)
        evidence = self._evidence(source, target, passes)
        controls = () if passes else (self._sends(source), self._hears(target))
        return ProbedFlow(
            source=source.machine,
            source_device=source.device,
            target=target.machine,
            target_device=target.device,
            address=target.mac,
            family=0,
            protocol="frame",
            port=0,
            expected="pass" if passes else "deny",
            verdict=verdict("pass" if passes else "deny", False, evidence, controls),
            evidence=evidence,
            control=controls,
            why=self._why(source, target),
        )

    def _why(self, source: Nic, target: Nic) -> str:
        if source.meets(target):
            return f"both are on {source.wire}"
        if source.management or target.management:
            return "the management path leads to no guest"
        if source.wire == target.wire:
            return f"{source.wire} has peers: false"
        return "wires never meet"

    def _evidence(self, source: Nic, target: Nic, passes: bool) -> Evidence:
        for nic, deed in ((source, "sent nothing"), (target, "could not listen")):
            if nic.machine in self.troubles:
                return Evidence("error", f"{nic.machine} {deed}: {self.troubles[nic.machine]}")
        came = self._between.get((source.place, target.place), ())
        if passes:
            came = tuple(sent for sent in came if sent.trick == "plain")
        if came:
            tricks = dict.fromkeys(_WORDS[sent.trick].format(f"{source.machine}'s {source.device}") for sent in came)
            return Evidence("answered", f"{target.device} heard {' and '.join(tricks)}")
        return Evidence("silence")

    def _trick(self, sent: Routed) -> ProbedFlow:
        target, via = sent.target, sent.via
        trouble = next((self.troubles[n] for n in (sent.nic.machine, target.machine) if n in self.troubles), None)
        if trouble is not None:
            evidence = Evidence("error", trouble)
        elif sent in self._heard_at.get(target.place, ()):
            words = _WORDS[sent.trick].format(sent.nic.machine)
            evidence = Evidence("answered", f"{target.machine} got {words} through {via.machine}")
        else:
            evidence = Evidence("silence")
        controls = (self._sends(sent.nic, via), self._gets(target))
        return ProbedFlow(
            source=sent.nic.machine,
            source_device=sent.nic.device,
            target=target.machine,
            target_device=target.device,
            address=sent.address,
            family=4 if "." in sent.address else 6,
            protocol=sent.protocol,
            port=sent.port,
            expected="deny",
            verdict=verdict("deny", False, evidence, controls),
            evidence=evidence,
            control=controls,
            why=sent.why,
            trick=sent.trick,
        )

    # --- controls ---

    def _sends(self, nic: Nic, to: Nic | None = None) -> Control:
        """Somebody heard this NIC, so that silence elsewhere means something."""
        hearers = [other for other in self._hearers.get(nic.place, ()) if to is None or other is to]
        if hearers:
            return Control("source", True, "peer", f"{_shown(hearers[0])} heard {_shown(nic)}")
        if nic.place in self.unplugged:
            return Control("source", True, "unplugged", f"the engine reports the cable of {_shown(nic)} pulled")
        own = any(device == nic.device for device, _ in self._ears(nic).own)
        if to is None and own:
            return Control("source", nic.place in self.sound, "self", f"{_shown(nic)} sent; {self._state(nic)}")
        return Control("source", False, "none", f"nobody heard {_shown(nic)}")

    def _hears(self, nic: Nic) -> Control:
        """This NIC heard somebody, so that what it did not hear means something."""
        heard = next((s for s in self._heard_at.get(nic.place, ()) if s.nic.meets(nic) and s.trick == "plain"), None)
        if heard is not None:
            return Control("target", True, "peer", f"{_shown(nic)} heard {_shown(heard.nic)}")
        if nic.place in self.unplugged:
            return Control("target", True, "unplugged", f"the engine reports the cable of {_shown(nic)} pulled")
        if any(device == nic.device for device, _ in self._ears(nic).own):
            details = f"{_shown(nic)} heard itself alone; {self._state(nic)}"
            return Control("target", nic.place in self.sound, "self", details)
        return Control("target", False, "none", f"{_shown(nic)} heard nothing, not even itself")

    def _gets(self, nic: Nic) -> Control:
        """This NIC gets what is for it alone, as a packet through a router would be; what is for all shows less."""
        came = (s for s in self._heard_at.get(nic.place, ()) if isinstance(s, Unicast) and s.target == nic)
        heard = next(came, None)
        if heard is not None:
            return Control("target", True, "peer", f"{_shown(nic)} got what {_shown(heard.nic)} sent it alone")
        if nic.place in self.unplugged:
            return Control("target", True, "unplugged", f"the engine reports the cable of {_shown(nic)} pulled")
        return Control("target", False, "none", f"{_shown(nic)} got nothing that was for it alone")

    def _state(self, nic: Nic) -> str:
        return "it is up as planned" if nic.place in self.sound else "it is not up as planned"

    def _ears(self, nic: Nic) -> Overheard:
        return self.heard.get(nic.machine, self._nobody)

    # --- what nobody planned ---

    def _strangers(self) -> Iterator[Finding]:
        known = {nic.mac for nic in self.todo.nics} | {sent.frame[6:12].hex(":") for sent in self.todo.sent}
        ways_out = {network.name for network in self.plan.networks if network.egress != "none"}
        by_mac = {nic.mac: nic for nic in self.todo.nics}
        for nic in self.todo.nics:
            for device, mac, kind in sorted(self._ears(nic).sources):
                if device != nic.device or mac == nic.mac:
                    continue
                if nic.management:
                    # one whose cable is pulled has heard it while labctl had the cable in, to ask it
                    if kind == _IPV6 and mac not in known and nic.place not in self.unplugged:
                        details = f"{nic.machine}: {mac} speaks IPv6 on the management path, which has none"
                        yield _fail("management-ipv6", nic, details)
                elif mac not in known and nic.wire not in ways_out and not int(mac[:2], 16) & 1:
                    details = f"{nic.machine}: {mac} speaks on {nic.wire}, and no NIC of the plan has that address"
                    yield _fail("stranger", nic, details)
                elif (other := by_mac.get(mac)) and other.wire != nic.wire and not self._meet(other, nic):
                    details = (
                        f"{nic.machine}: {mac} speaks on {nic.wire}, and {_shown(other)} has that address elsewhere"
                    )
                    yield _fail("stranger", nic, details)

    def _meet(self, source: Nic, target: Nic) -> bool:
        """Whether frames of a NIC came to another, which is told of with the flow between them."""
        return bool(self._between.get((source.place, target.place)))

    def _claims(self) -> Iterator[Finding]:
        """Who answers for an address that is neither its own nor anybody's on the wire: a proxy, the host, a twin."""
        owners: dict[str, set[str]] = defaultdict(set)
        for nic in self.todo.nics:
            for own in nic.addresses:
                owners[str(own)].add(nic.machine)
        exits = {str(a) for network in self.plan.networks for a in (network.exit, network.resolver) if a is not None}
        speakers = {nic.mac: nic for nic in self.todo.nics}
        for nic in self.todo.nics:
            for device, address, mac in sorted(self._ears(nic).claims):
                if device != nic.device or nic.management or address in exits:
                    continue
                speaker = speakers.get(mac)
                if speaker is not None and (speaker.machine in owners.get(address, ()) or _is_own(address)):
                    continue
                who = f"{mac}, which nobody of the plan has," if speaker is None else _shown(speaker)
                yield _fail("claim", nic, f"{nic.machine}: {who} answers for {address} on {nic.wire}")

    def _listening(self) -> Iterator[Finding]:
        """Unicast is for its target and for sensors: others must not hear it, and sensors must."""
        if not self.switched:
            return
        alone = [sent for sent in self.todo.sent if isinstance(sent, Unicast)]
        for nic in self.todo.nics:
            heard = set(self._heard_at.get(nic.place, ()))
            for_others = [
                sent
                for sent in alone
                if sent.nic.wire == nic.wire
                and nic.machine not in (sent.nic.machine, sent.target.machine)
                and sent in self._heard_at.get(sent.target.place, ())
            ]
            leaked = [sent for sent in for_others if sent in heard]
            if leaked and not nic.promiscuous:
                one = leaked[0]
                words = f"{_shown(nic)} hears what {_shown(one.nic)} sends to {_shown(one.target)}"
                yield _fail("overhears", nic, words)
            if nic.promiscuous and for_others and not leaked and nic.machine not in self.troubles:
                yield _fail("deaf", nic, f"{_shown(nic)} is promiscuous and hears no unicast of others on {nic.wire}")


def _is_own(address: str) -> bool:
    """Whether an address is of the kind that every NIC gives itself."""
    return ip_address(address).is_link_local


def _fail(kind: FindingKind, nic: Nic, details: str) -> Finding:
    return Finding(kind, nic.machine, details, Verdict.FAIL)


def _shown(nic: Nic) -> str:
    return f"{nic.machine}'s {nic.device}"
