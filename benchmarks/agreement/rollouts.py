"""What a model of ours answers to generated rows, as cases."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks.agreement.case import Case, rows
from benchmarks.agreement.domains import calls, choices, documents, instructions, maths, others, programs, reasoning
from cascade import environments
from cascade.chat import Row, parse_response
from cascade.policy import make_policy
from cascade.recipe import Rollout
from cascade.rollout import make_sampler
from cascade.rollout.driver import Driver, RolloutRequest
from cascade.utils.seeds import derive_seed

SETTINGS = {"max_new_tokens": 192, "temperature": 1.0}

MAKERS = {
    "math": maths.as_case,
    "mcqa": choices.as_case,
    "structured_output": documents.as_case,
    "tool_calling": calls.as_case,
    "instruction_following": instructions.as_case,
    "code": programs.as_case,
    "reasoning_gym": reasoning.as_case,
    "swe_agentless": others.as_swe_case,
}


def sampled(model: Path, count: int, seed: int) -> Iterator[Case]:
    """`count` rollouts an environment, one a row, of the lowest level."""
    policy = make_policy("hf", model, None)
    settings = Rollout.model_validate(SETTINGS)
    sampler = make_sampler(settings, policy)
    try:
        with ThreadPoolExecutor(2) as pool:
            driver = Driver(sampler, policy.tokenizer, pool, settings, together=False, judge_unfinished=False)
            for name, maker in MAKERS.items():
                asked = list(rows(name, count, seed, range(1, 2)))
                requests = [
                    RolloutRequest(row, environments.get(name), [derive_seed(seed, "agreement rollout", name, index)])
                    for index, row in enumerate(asked)
                ]
                for row, [answer] in zip(asked, driver.run(requests).groups, strict=True):
                    response = parse_response(answer.text, thinking=True, finished=answer.transcript.finished)
                    case = maker(_bare(row), response)
                    if case is not None and response.finished:
                        yield replace(case, origin="rollout of ours")
    finally:
        sampler.close()


def _bare(row: Row) -> Row:
    return {key: value for key, value in row.items() if key not in ("demonstration", "expected")}
