"""Rollouts for people to read: the best, the worst, the longest and the first failed of a step."""

from typing import TYPE_CHECKING, Any

from cascade.chat import prompt_of

if TYPE_CHECKING:
    from cascade.training.groups import Rollout

SHOWN = 4000
"""Characters of a prompt and of a response in the tracker's table, so that its page opens at any length."""


def sample_rows(rollouts: "list[Rollout]", step: int) -> list[dict]:
    """The best, the worst, the longest and the first failed rollout, for people to read."""
    judged = [rollout for rollout in rollouts if rollout.reward is not None]
    failed = [rollout for rollout in rollouts if rollout.verdict is not None and rollout.verdict.failure is not None]
    chosen = [("longest", max(rollouts, key=lambda r: r.transcript.length))]
    if judged:
        chosen.insert(0, ("best", max(judged, key=lambda r: r.reward or 0.0)))
        chosen.insert(1, ("worst", min(judged, key=lambda r: r.reward or 0.0)))
    if failed:
        chosen.append(("failed", failed[0]))
    return [_readable(step, kind, rollout) for kind, rollout in chosen]


def _readable(step: int, kind: str, rollout: "Rollout") -> dict:
    messages, _ = prompt_of(rollout.prompt.row)
    verdict = rollout.verdict
    return {
        "step": step,
        "kind": kind,
        "domain": rollout.prompt.domain,
        "prompt_id": rollout.prompt.id,
        "prompt": messages,
        "response": rollout.text,
        "turns": len(rollout.transcript.turns),
        "tokens": rollout.transcript.length,
        "finished": rollout.transcript.finished,
        "reward": rollout.reward,
        "failure": verdict.failure if verdict else None,
        "reason": verdict.reason if verdict else "overlong",
    }


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A sample as a row of the tracker's table: its prompt as text, long texts without their middle."""
    prompt = "\n\n".join(f"{message['role']}: {message.get('content') or ''}" for message in row["prompt"])
    return {**row, "prompt": _cut(prompt), "response": _cut(row["response"])}


def _cut(text: str) -> str:
    if len(text) <= SHOWN:
        return text
    half = SHOWN // 2
    return f"{text[:half]} [… {len(text) - 2 * half:,} characters left out …] {text[-half:]}"
