"""From a response to a verdict: the one way in which training, evaluation and curation judge."""

from collections.abc import Callable, Sequence

from cascade.chat import Response, Row
from cascade.environments.base import Environment, Episode, GroupEnvironment, Verdict, failure_of

Judge = Callable[[str, Row, Sequence[Response], bool], list[Verdict]]
"""The verdicts on responses to one prompt, by the environment of this name; with each other, or one by one."""

_elsewhere: Judge | None = None


def judge_elsewhere(call: Judge | None) -> None:
    """From now on have responses judged by `call`, which raises on no response; None: in the caller's thread again."""
    global _elsewhere
    _elsewhere = call


def judge(environment: Environment, row: Row, response: Response) -> Verdict:
    """The environment's verdict. A verifier must not raise; one that does costs its rollout (`verifier_error`),
    as does a reward outside [0, 1] (`reward_out_of_range`): both are counted, and too many stop the node."""
    if _elsewhere is not None:
        return _elsewhere(environment.name, row, [response], False)[0]
    try:
        return _in_range(environment.verify(row, response))
    except Exception as error:
        return failure_of(error)


def judge_episode(episode: Episode) -> Verdict:
    """`judge` of what an episode has come to."""
    try:
        return _in_range(episode.verdict())
    except Exception as error:
        return failure_of(error)


def judge_together(environment: Environment, row: Row, responses: Sequence[Response]) -> list[Verdict]:
    """`judge` of the responses to one prompt, with each other where the environment's reward is relative."""
    if not isinstance(environment, GroupEnvironment):
        return [judge(environment, row, response) for response in responses]
    if _elsewhere is not None:
        return _elsewhere(environment.name, row, responses, True)
    try:
        verdicts = [_in_range(verdict) for verdict in environment.verify_group(row, responses)]
        if len(verdicts) != len(responses):
            raise ValueError(f"{len(verdicts)} verdicts for {len(responses)} responses")
    except Exception as error:
        return [failure_of(error)] * len(responses)
    return verdicts


def _in_range(verdict: Verdict) -> Verdict:
    if verdict.reward is not None and not 0 <= verdict.reward <= 1:
        return Verdict(None, failure="reward_out_of_range", reason=f"reward {verdict.reward} is not in [0, 1]")
    return verdict
