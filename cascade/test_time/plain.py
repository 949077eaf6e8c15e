"""Plain sampling, what a strategy is compared with: answers from scratch, as many as its budget allows."""

from collections.abc import Sequence

from cascade.environments.competition.problems import Problem
from cascade.environments.competition.wording import prompt
from cascade.environments.proofs.wording import verify_prompt
from cascade.test_time.requests import Generate, Generated, Outcome, Search, Stopped, Submit, TryOut
from cascade.test_time.submit import programs


def plain_answers(problem: str, count: int, verified: int, verifications: int, checkpoints: tuple[int, int]) -> Search:
    """`count` answers, of which the first `verified` have verifications. `checkpoints`: who writes, who verifies."""
    writer, verifier = checkpoints
    try:
        requests = [Generate(f"plain/c{index}", "write", 0, problem, writer) for index in range(count)]
        answers: list[Generated] = yield list(requests)
        yield [
            Generate(f"{request.key}/v{number}", "verify", 0, verify_prompt(problem, answer.content), verifier)
            for request, answer in list(zip(requests, answers, strict=True))[:verified]
            if answer.finished and answer.content
            for number in range(verifications)
        ]
    except Stopped:
        return Outcome("", [], "stopped")
    return Outcome("", [], "rounds")


def plain_programs(problem: Problem, count: int, writers: Sequence[int]) -> Search:
    """`count` programs for the subtasks in turn, from the prompts of a first round. Every one is tried out and judged,
    so that what any choice of submissions would have earned can be said."""
    subtasks = range(len(problem.subtasks))
    try:
        requests = [
            Generate(
                f"plain/s{index % len(subtasks) + 1}/c{index}",
                "write",
                0,
                prompt(problem, index % len(subtasks)),
                writers[index // len(subtasks) % len(writers)],
            )
            for index in range(count)
        ]
        responses: list[Generated] = yield list(requests)
        written = programs(requests, responses)
        yield [TryOut(f"{key}/try", 0, program) for key, program in written]
        yield [Submit(f"{key}/judge", 0, program, counted=False) for key, program in written]
    except Stopped:
        return Outcome("", [], "stopped")
    return Outcome("", [], "rounds")
