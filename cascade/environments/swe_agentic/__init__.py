"""Code repair with tools: an issue in the prompt, a checkout to look at and change over many turns.

Each turn may call the tools of `checkout`; a response that calls none ends the episode, as `submit` does. Then the
row's tests decide, in the sandbox (`swe_agentless.checks`): reward 1 if all of `FAIL_TO_PASS` and `PASS_TO_PASS` pass,
else 0. They run on the checkout with its test files as they were: what the agent made of those does not count. What
a test expects never enters the sandbox. But `run_tests` tells the agent, so that it could write code for just those
values: so it reports on the tests named in `shown_tests` alone (default: all), and the others stay hidden.

Rows load as those of `swe_agentless` do (SWE-bench, SWE-Gym and OpenHands name the same fields); their prompt lists
the tools. Where the tests need the repository's container, which this environment does not run, `run_tests` says so,
and the verdict is a failure `no_tests` with the patch as `extracted`, ready for a harness that has the containers.
"""

from collections.abc import Iterator

from cascade.chat import Message, Response, Row, prompt_of
from cascade.environments.base import Episode, EpisodeEnvironment, Verdict
from cascade.environments.swe_agentic.checkout import PARAMETERS, Checkout
from cascade.environments.swe_agentic.tasks import generate
from cascade.environments.swe_agentic.testing import report, result_of
from cascade.environments.swe_agentless.checks import Check, Outcome, read_checks, run_checks
from cascade.environments.swe_agentless.diffs import render_diff
from cascade.environments.swe_agentless.editing import Edit, Files, place, split_lines
from cascade.environments.swe_agentless.instances import Instance, load
from cascade.errors import RowError

MAX_CALLS = 16
"""Calls of one response that are carried out."""


class SWEAgentic(EpisodeEnvironment):
    name = "swe_agentic"
    gym_names = ("swe_agents",)

    def check_row(self, row: Row) -> None:
        """Raises RowError as `instances.load` does, `bad_tests` where the row's `tests` cannot be run here, `bad_mode`
        where it asks for something else than a tested fix, and `foreign_tools` where it is for another agent."""
        instance = load(row)
        _shown_tests(row, _checks(instance))
        if (instance.mode, instance.grade) != ("eval", "tests"):
            raise RowError("bad_mode", f"swe_agentic: no episode has mode {instance.mode} and grade {instance.grade}")
        foreign = {tool["function"]["name"] for tool in prompt_of(row)[1] or ()} - PARAMETERS.keys()
        if foreign:
            raise RowError("foreign_tools", f"swe_agentic: the row lists tools that are not here: {min(foreign)}")

    def start(self, row: Row) -> Episode:
        return RepairEpisode(row)

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Levels as those of `swe_agentless`: more functions, from 4 on a caller in another file that shows the bug,
        at 5 an issue that does not say what the function is for. At 3 some demonstrations first try a wrong fix."""
        return generate(count, seed, level)


class RepairEpisode(Episode):
    def __init__(self, row: Row):
        self._instance = load(row)
        self._checks = _checks(self._instance)
        self._shown = _shown_tests(row, self._checks)
        self._checkout = Checkout(self._instance.files, self._report)
        self._tested: tuple[Files, list[Outcome]] | None = None

    def answer(self, response: Response) -> list[Message] | None:
        results = []
        for number, call in enumerate(response.tool_calls):
            if number == MAX_CALLS:
                results.append(f"Error: only the first {MAX_CALLS} calls were carried out")
                break
            results.append(self._checkout.call(call))
            if self._checkout.submitted:
                return None
        if response.malformed:
            results.append(f"Error: {response.malformed}")
        return [{"role": "tool", "content": result} for result in results] or None

    def verdict(self) -> Verdict:
        instance = self._instance
        files = self._with_own_tests(self._checkout.files)
        patch = _patch(instance, files)
        if not patch:
            return Verdict(0.0, extracted="", reason="the repository is as it was")
        if not self._checks:
            needs = f"the container {instance.image}" if instance.image else "the repository's container"
            return Verdict(None, failure="no_tests", extracted=patch, reason=f"its tests need {needs}")
        outcomes = self._outcomes(files)
        failed = [outcome for outcome in outcomes if not outcome.passed]
        if not failed:
            return Verdict(1.0, extracted=patch, reason=f"all {len(outcomes)} tests pass")
        reason = f"{len(failed)} of {len(outcomes)} tests fail; {failed[0].check.name}: {failed[0].reason}"
        return Verdict(0.0, extracted=patch, reason=reason)

    def close(self) -> None:
        """Nothing to release: a checkout lies in memory."""

    def _report(self, files: Files) -> str:
        if not self._checks:
            return "Error: the tests cannot run here"
        outcomes = self._outcomes(self._with_own_tests(files))
        return report([result_of(outcome) for outcome in outcomes if outcome.check.name in self._shown])

    def _outcomes(self, files: Files) -> list[Outcome]:
        """Of all tests, hidden ones too. An agent that has just run them hands in the same files: once is enough."""
        if self._tested is None or self._tested[0] != files:
            self._tested = files, run_checks(files, self._checks)
        return self._tested[1]

    def _with_own_tests(self, files: Files) -> dict[str, str]:
        """The files with the test files as they were before the episode."""
        instance = self._instance
        changed = {path: text for path, text in files.items() if not instance.is_test(path)}
        return changed | {path: text for path, text in instance.files.items() if instance.is_test(path)}


def _checks(instance: Instance) -> list[Check]:
    """Empty where the row's tests cannot run here. Raises RowError (`bad_tests`)."""
    if not instance.tests:
        return []
    return read_checks(instance.tests, (*instance.fail_to_pass, *instance.pass_to_pass))


def _shown_tests(row: Row, checks: list[Check]) -> set[str]:
    """The tests that `run_tests` reports on. Raises RowError (`bad_tests`)."""
    names = {check.name for check in checks}
    shown = row.get("shown_tests")
    if shown is None:
        return names
    if not isinstance(shown, list) or not shown or not names.issuperset(map(str, shown)):
        raise RowError("bad_tests", "swe_agentic: shown_tests does not name some of FAIL_TO_PASS and PASS_TO_PASS")
    return set(shown)


def _patch(instance: Instance, files: Files) -> str:
    """What was changed, as a unified diff; empty where nothing was."""
    edits = [
        Edit(path, old, new, line=0)
        for path, text in files.items()
        for old, new in [(tuple(split_lines(instance.files.get(path, ""))), tuple(split_lines(text)))]
        if old != new
    ]
    return render_diff(place(instance.files, edits), prefix=instance.path_prefix) if edits else ""


ENVIRONMENT = SWEAgentic()
