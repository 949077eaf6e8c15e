"""Sample rollouts of a step, for inspection: the best, the worst, the longest and the first failed."""

from typing import TYPE_CHECKING, Any

from cascade.chat import prompt_of

if TYPE_CHECKING:
    from cascade.training.groups import Rollout

TABLE_CHARACTERS = 4000
"""Characters of a prompt and of a response in the tracker's table, so that its page stays small."""


def sample_rows(rollouts: "list[Rollout]", step: int) -> list[dict]:
    """The best, the worst, the longest and the first failed rollout, a row each."""
    judged = [rollout for rollout in rollouts if rollout.reward is not None]
    failed = [rollout for rollout in rollouts if rollout.verdict is not None and rollout.verdict.failure is not None]
    samples = [("longest", max(rollouts, key=lambda r: r.transcript.length))]
    if judged:
        samples.insert(0, ("best", max(judged, key=lambda r: r.reward or 0.0)))
        samples.insert(1, ("worst", min(judged, key=lambda r: r.reward or 0.0)))
    if failed:
        samples.append(("failed", failed[0]))
    return [_readable(step, kind, rollout) for kind, rollout in samples]


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


def table_row(row: dict[str, Any]) -> dict[str, Any]:
    """A sample as a row of the tracker's table: the prompt as text, long texts truncated in the middle."""
    prompt = "\n\n".join(f"{message['role']}: {message.get('content') or ''}" for message in row["prompt"])
    return {**row, "prompt": _cut(prompt), "response": _cut(row["response"])}


def _cut(text: str) -> str:
    if len(text) <= TABLE_CHARACTERS:
        return text
    half = TABLE_CHARACTERS // 2
    return f"{text[:half]} [… {len(text) - 2 * half:,} characters left out …] {text[-half:]}"
