"""Where verdicts come from when they are given elsewhere."""

import sys

import pytest

from cascade import environments, judges
from cascade.chat import Response
from cascade.environments import Verdict, verification
from cascade.errors import CascadeError
from cascade.judges.settings import Judges
from cascade.launch.ray_verifiers import spread
from cascade.recipe.placement import Verification


def test_responses_go_to_where_they_are_to_be_judged() -> None:
    asked = []

    def elsewhere(name: str, row: dict, responses: list, together: bool) -> list[Verdict]:
        asked.append((name, len(responses), together))
        return [Verdict(0.5)] * len(responses)

    verification.judge_elsewhere(elsewhere)
    try:
        mcqa, preference = environments.get("mcqa"), environments.get("human_preference")
        assert verification.judge(mcqa, {}, Response("")).reward == 0.5
        assert len(verification.judge_together(mcqa, {}, [Response("")] * 3)) == 3
        assert len(verification.judge_together(preference, {}, [Response("")] * 3)) == 3
    finally:
        verification.judge_elsewhere(None)
    assert asked == [("mcqa", 1, False)] * 4 + [("human_preference", 3, True)]
    assert verification.judge(environments.get("mcqa"), {}, Response("Answer: A")).reward != 0.5


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CascadeError, match=r"^verification\.ray: Ray is not installed; pip install"):
        spread(Verification(ray="auto", workers=1), Judges(), 1)


def test_what_judges_cost_elsewhere_is_counted_once() -> None:
    judges.report_usage(judges.Usage(requests=3))
    judges.report_usage(judges.Usage(requests=4, failures=1))
    assert judges.take_usage() == judges.Usage(requests=7, failures=1)
    assert judges.take_usage() == judges.Usage()
