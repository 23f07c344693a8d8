"""A student's token: the seed of their secrets on paper, told to ``up`` on a computer of their own and not kept there.

The file that a class takes along is the same for all and has no answers. From the token come the student's own secrets
and nobody else's; they are told to the machines, and what stays is proofs, by which ``submit`` knows right from wrong.
Whoever owns a computer can look into the machines on it, so this keeps answers from being found by chance, and not from
somebody who looks for them: what is to count is judged where the machines are the teacher's.
"""

from __future__ import annotations

from dataclasses import replace

from labctl.errors import UsageError
from labctl.lifecycle import converge
from labctl.lifecycle.lab_folder import CLASS_MARK
from labctl.lifecycle.locate import Draft
from labctl.spec.secrets import proofs, same_holder, seed_in


def wanted(draft: Draft) -> bool:
    """Whether ``up`` needs one: the lab came for a class, and secrets have to be told that are not known here."""
    if draft.seed or not (draft.forgets or (draft.record is None and (draft.spec.root / CLASS_MARK).exists())):
        return False
    return bool(converge.to_be_told(draft, converge.difference(draft)))


def entered(draft: Draft, text: str) -> Draft:
    """The draft with the secrets of a token. Raises UsageError for one that is none, or is another student's."""
    seed = seed_in(text, draft.spec.name)
    if not seed:
        raise UsageError(f"this is no token for {draft.spec.name}", hint="Look at the handout: six times four letters.")
    known = draft.record.proofs if draft.record is not None and draft.forgets else {}
    if known and not same_holder(known, proofs(seed, draft.plan.lab, draft.plan.secrets)):
        raise UsageError(
            "this is the token of somebody else than was here before", hint="labctl destroy makes room for another one."
        )
    return replace(draft, seed=seed, forgets=True)
