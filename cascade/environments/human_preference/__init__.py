"""Human preference: which of several replies people would rather have (NeMo Gym's `genrm_compare`).

There is no right answer to verify, so a reward model compares. In training the rollouts of a prompt are compared with
each other, all pairs in both orders (`verify_group`; `cascade.judges.ranking` says how scores become rewards): such a
reward says which rollout of the group is better, and nothing about the policy's level. To see that, `verify` compares
a single response with the row's `reference`: 1 for a win, 0.5 for a tie, 0 for a loss. Benchmarks, curation and
`cascade score` use it.

A row needs only its prompt; `reference` is text. The judge is the recipe's `judges.preference`. Rows that this
environment generates name the nano judge, which takes them where the recipe has no other.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

from cascade import judges
from cascade.chat import Response, Row, prompt_of
from cascade.environments.base import GroupEnvironment, Verdict
from cascade.environments.human_preference.judge import NanoJudge, understand
from cascade.environments.human_preference.tasks import make_task
from cascade.environments.synthetic.rows import nano_rows
from cascade.errors import RowError
from cascade.judges import Comparison, JudgeError, PreferenceJudge, ranking

NO_ANSWER = Verdict(0.0, reason="the response has no answer")
NO_JUDGE = "no reward model to judge the row; name one in the recipe: judges: {preference: {url: …/v1, model: …}}"


class HumanPreference(GroupEnvironment):
    name = "human_preference"
    gym_names = ("genrm_compare", "genrm")

    def check_row(self, row: Row) -> None:
        """Raises RowError: `no_request`, `bad_reference`, `no_judge`, `unknown_request` (by the nano judge)."""
        messages, _ = prompt_of(row)
        if messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
            raise RowError("no_request", "human_preference: the prompt does not end with a user message")
        reference = row.get("reference")
        if reference is not None and not (isinstance(reference, str) and reference.strip()):
            raise RowError("bad_reference", "human_preference: `reference` is not a reply in text")
        judge = _judge_of(row)
        if judge is None:
            raise RowError("no_judge", f"human_preference: {NO_JUDGE}")
        if isinstance(judge, NanoJudge) and understand(messages) is None:
            raise RowError("unknown_request", "human_preference: the nano judge does not know this request")

    def verify(self, row: Row, response: Response) -> Verdict:
        """The response against the row's reference. Failures: `no_reference`, `no_judge`, and a JudgeError's code."""
        reply = response.content.strip()
        if not reply:
            return NO_ANSWER
        reference = row.get("reference")
        if reference is None:
            return Verdict(None, "no_reference", reason="the row has no `reference` to compare a single response with")
        if reply == reference.strip():
            return Verdict(0.5, extracted=0.0, reason="the reference itself")
        judge = _judge_of(row)
        if judge is None:
            return Verdict(None, "no_judge", reason=NO_JUDGE)
        forward, backward = judge.compare(prompt_of(row)[0], [(reply, reference), (reference, reply)])
        for found in (forward, backward):
            if isinstance(found, JudgeError):
                return Verdict(None, found.code, reason=str(found))
        assert isinstance(forward, Comparison)
        assert isinstance(backward, Comparison)
        own, other = ranking.both_orders(forward, backward)
        reward = 1.0 if own > other else 0.5 if own == other else 0.0
        return Verdict(reward, extracted=own - other, reason=f"{own:.2f} against the reference's {other:.2f}")

    def verify_group(self, row: Row, responses: Sequence[Response]) -> list[Verdict]:
        """Each response against all others. One without an answer has reward 0 and takes no part.

        Equal answers are judged once and are not compared with each other. Failures: `no_judge`, and the code of
        the JudgeError that left a response with too few comparisons.
        """
        replies = [response.content.strip() for response in responses]
        distinct = list(dict.fromkeys(filter(None, replies)))
        judge = _judge_of(row)
        if judge is None:
            return [Verdict(None, "no_judge", reason=NO_JUDGE) if reply else NO_ANSWER for reply in replies]
        pairs, errors = _compare_all(judge, row, distinct)
        quality = dict(zip(distinct, ranking.qualities([replies.count(r) for r in distinct], pairs), strict=True))
        decided = [i for i, reply in enumerate(replies) if reply and quality[reply] is not None]
        verdicts = dict(zip(decided, _rewards(responses, decided, quality), strict=True))
        return [
            verdicts.get(i) or (Verdict(None, errors[0].code, reason=str(errors[0])) if reply else NO_ANSWER)
            for i, reply in enumerate(replies)
        ]

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Level 1: a request. 2: with a condition. 3: a follow-up. 4: a condition, longer. 5: follow-up, condition.

        The demonstration is a good reply, `reference` an adequate one that it beats.
        """
        return nano_rows(self.name, self.name, count, seed, level, make_task)


def _judge_of(row: Row) -> PreferenceJudge | None:
    return judges.preference() or (NANO if row.get("judge") == "nano" else None)


def _compare_all(
    judge: PreferenceJudge, row: Row, replies: list[str]
) -> tuple[dict[tuple[int, int], tuple[float, float]], list[JudgeError]]:
    """Scores of every pair that was decided in both orders, and the errors of the others."""
    indices = list(combinations(range(len(replies)), 2))
    orders = [(i, j) for pair in indices for i, j in (pair, pair[::-1])]
    found = judge.compare(prompt_of(row)[0], [(replies[i], replies[j]) for i, j in orders]) if orders else []
    pairs = {}
    for pair, forward, backward in zip(indices, found[::2], found[1::2], strict=True):
        if isinstance(forward, Comparison) and isinstance(backward, Comparison):
            pairs[pair] = ranking.both_orders(forward, backward)
    return pairs, [one for one in found if isinstance(one, JudgeError)]


def _rewards(responses: Sequence[Response], decided: list[int], quality: dict[str, float | None]) -> list[Verdict]:
    """Quality, length adjustment and conciseness bonus of the responses that have a quality."""
    if not decided:
        return []
    judged = [quality[responses[i].content.strip()] or 0.0 for i in decided]
    answers = [len(responses[i].content.strip()) for i in decided]
    reasoning = [len((responses[i].reasoning or "").strip()) for i in decided]
    lengths = ranking.length_adjustments(reasoning, answers)
    bonuses = ranking.conciseness_bonuses(judged, reasoning, answers)
    return [
        Verdict(
            ranking.reward(worth + length + bonus),
            quality=worth,
            reason=f"quality {worth:.2f}, length {length:+.2f}, conciseness {bonus:+.2f}",
        )
        for worth, length, bonus in zip(judged, lengths, bonuses, strict=True)
    ]


NANO = NanoJudge()
ENVIRONMENT = HumanPreference()
