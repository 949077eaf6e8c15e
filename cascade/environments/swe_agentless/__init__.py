"""Code repair without tools: an issue and the files it concerns in the prompt, edits of them as the answer.

The answer is SEARCH/REPLACE blocks or a unified diff (`answers`, `diffs`), applied whole or not at all (`editing`). One
that cannot be read or applied, or that touches the tests, has reward 0. Else the tests decide, in the sandbox
(`checks`): reward 1 if all of `FAIL_TO_PASS` and `PASS_TO_PASS` pass, else 0.

Rows (`instances`) come in our own form, in that of SWE-bench and SWE-Gym, and in that of NeMo Gym's `swerl_gen`. Of
the latter two the tests need the repository's container, which this environment does not run. The recipe's reward model
(`judges.patch`) scores their patches instead: the reward is the probability that it gives. Where the recipe has none,
an answer that applies is a failure `no_tests`, with the patch as `extracted`, ready for a harness that has the
containers.

As in NeMo Gym, `swerl_gen` answers stand within `<solution>`, and a row of mode `repro-gen` asks for a test script, the
last ```python fence; no reward model scores it. Unlike there, a diff is an answer too, lines to replace that stand in
two places are refused (there the first place is taken), a search may not end within a line, and only all tests together
earn a reward (there some earn 0.2).

The form alone is scored where a row says `"grade": "form"`: reward 1 for an answer that can be read and applied (for
`repro-gen`, that holds a script). `cascade score` does so for any row that has the key.
"""

from collections.abc import Iterator

from cascade import judges
from cascade.chat import Response, Row
from cascade.environments.base import Environment, Verdict
from cascade.environments.swe_agentless.answers import last_python_block, parse_edits, solution
from cascade.environments.swe_agentless.checks import read_checks, run_checks
from cascade.environments.swe_agentless.diffs import render_diff
from cascade.environments.swe_agentless.editing import Refused, place
from cascade.environments.swe_agentless.instances import Instance, load
from cascade.environments.swe_agentless.tasks import generate
from cascade.judges import JudgeError
from cascade.sandbox import SandboxError

PATCH_JUDGE = "judges: {patch: {url: …/v1, model: …}}"
MAX_JUDGED = 100_000
"""Characters of a patch that is shown to the reward model; a longer one is wrong. Without a bound a rollout could
escape its verdict by a patch that does not fit into the model's context."""


class SWEAgentless(Environment):
    name = "swe_agentless"
    gym_names = ("swerl_gen",)

    def check_row(self, row: Row) -> None:
        """Raises RowError as `instances.load` does, and `bad_tests` where the row's `tests` cannot be run here."""
        instance = load(row)
        if instance.tests:
            read_checks(instance.tests, (*instance.fail_to_pass, *instance.pass_to_pass))

    def verify(self, row: Row, response: Response) -> Verdict:
        instance = load(row)
        try:
            if instance.mode == "repro-gen":
                return _judge_script(instance, response.content)
            return _judge_edits(instance, response.content)
        except Refused as reason:
            return Verdict(0.0, reason=str(reason))
        except SandboxError as error:
            return Verdict(None, failure="sandbox", reason=str(error))

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Levels 1 to 3: one, two and three functions, in up to two files; from 4 the bug shows in a caller in another
        file, and at 5 the issue does not say what the function is for."""
        return generate(count, seed, level)


def _judge_edits(instance: Instance, text: str) -> Verdict:
    change = place(instance.files, parse_edits(solution(text, required=instance.tagged)))
    touched = [path for path in change.places if instance.is_test(path)]
    if touched:
        raise Refused(f"the answer edits a test file: {touched[0]}")
    patch = render_diff(change, prefix=instance.path_prefix)
    if instance.grade == "form":
        return Verdict(1.0, extracted=patch, reason="the edits apply")
    if not instance.tests:
        return _judge_patch(instance, patch)
    outcomes = run_checks(change.after, read_checks(instance.tests, (*instance.fail_to_pass, *instance.pass_to_pass)))
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if not failed:
        return Verdict(1.0, extracted=patch, reason=f"all {len(outcomes)} tests pass")
    reason = f"{len(failed)} of {len(outcomes)} tests fail; {failed[0].check.name}: {failed[0].reason}"
    return Verdict(0.0, extracted=patch, reason=reason)


def _judge_patch(instance: Instance, patch: str) -> Verdict:
    judge = judges.patch()
    if judge is None:
        return _no_tests(instance, patch, "the edits apply")
    if len(patch) > MAX_JUDGED:
        raise Refused(f"the patch is longer than {MAX_JUDGED} characters")
    files = {"/".join(path.split("/")[instance.path_prefix :]): text for path, text in instance.files.items()}
    try:
        score = judge.score(instance.problem_statement, files, patch)
    except JudgeError as error:
        return Verdict(None, error.code, patch, str(error))
    return Verdict(score, extracted=patch, reason=f"right with probability {score:g}, says the reward model")


def _judge_script(instance: Instance, text: str) -> Verdict:
    script = last_python_block(solution(text, required=False))
    if script is None:
        raise Refused("the answer holds no ```python script")
    if instance.grade == "form":
        return Verdict(1.0, extracted=script, reason="the answer holds a script")
    return _no_tests(instance, script, "the answer holds a script")


def _no_tests(instance: Instance, extracted: str, reason: str) -> Verdict:
    needs = f"the container {instance.image}" if instance.image else "the repository's container"
    remedy = "" if instance.mode == "repro-gen" else f", or a reward model in the recipe: {PATCH_JUDGE}"
    return Verdict(None, failure="no_tests", extracted=extracted, reason=f"{reason}; its tests need {needs}{remedy}")


ENVIRONMENT = SWEAgentless()
