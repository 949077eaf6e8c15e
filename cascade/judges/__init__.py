"""Models that judge: a generative reward model (two responses), a judge of answers (against a reference), a reward
model of patches (against the issue), and a grader of proofs.

The recipe's `judges` names the models. A process runs one recipe, and environments are global objects found by name, so
`use` sets the judges once for the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade.judges.base import AnswerJudge, Comparison, JudgeError, PatchJudge, PreferenceJudge, ProofJudge, Usage

if TYPE_CHECKING:
    from cascade.judges.client import ChatClient
    from cascade.judges.settings import Judges

__all__ = [
    "AnswerJudge",
    "Comparison",
    "JudgeError",
    "PatchJudge",
    "PreferenceJudge",
    "ProofJudge",
    "Usage",
    "answer",
    "any_named",
    "patch",
    "preference",
    "proof",
    "report_usage",
    "take_usage",
    "use",
]

_preference: PreferenceJudge | None = None
_answer: AnswerJudge | None = None
_patch: PatchJudge | None = None
_proof: ProofJudge | None = None
_clients: list[ChatClient] = []
_reported: list[Usage] = []


def use(settings: Judges) -> None:
    """Set the judges of this process. Sends no request yet, because a node may not need them."""
    global _preference, _answer, _patch, _proof
    _preference = _answer = _patch = _proof = None
    while _clients:
        _clients.pop().close()
    if not settings.named:
        return
    from cascade.judges.client import ChatClient
    from cascade.judges.genrm import GenRM
    from cascade.judges.llm_judge import LLMJudge
    from cascade.judges.patch_rm import PatchRM
    from cascade.judges.proof_grader import ProofGrader

    if settings.preference is not None:
        _clients.append(ChatClient(settings.preference))
        _preference = GenRM(_clients[-1], settings.preference.roles)
    if settings.answer is not None:
        _clients.append(ChatClient(settings.answer))
        _answer = LLMJudge(_clients[-1])
    if settings.patch is not None:
        _clients.append(ChatClient(settings.patch))
        _patch = PatchRM(_clients[-1])
    if settings.proof is not None:
        _clients.append(ChatClient(settings.proof))
        _proof = ProofGrader(_clients[-1], settings.proof.grades)


def preference() -> PreferenceJudge | None:
    """The recipe's `judges.preference`, if it has one."""
    return _preference


def answer() -> AnswerJudge | None:
    """The recipe's `judges.answer`, if it has one."""
    return _answer


def patch() -> PatchJudge | None:
    """The recipe's `judges.patch`, if it has one."""
    return _patch


def proof() -> ProofJudge | None:
    """The recipe's `judges.proof`, if it has one."""
    return _proof


def any_named() -> bool:
    """Whether the recipe has a judge."""
    return bool(_clients)


def report_usage(usage: Usage) -> None:
    """Add the usage of requests that another machine sent for this process."""
    _reported.append(usage)


def take_usage() -> Usage:
    """Usage of all judges since the last call."""
    reported = [_reported.pop() for _ in range(len(_reported))]
    return sum((*(client.take_usage() for client in _clients), *reported), Usage())
