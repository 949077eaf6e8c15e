"""NeMo Gym's resources servers, asked as its HTTP layer asks them: `verify` of a request that has the row's fields.

Each is configured as the package's own YAML configures it; `math_with_judge` has its judge off, as no model is here.
"""

import asyncio
import importlib
import inspect
import os
import sys
from functools import cache
from unittest.mock import MagicMock

from lines import answer

HERE = {"host": "127.0.0.1", "port": 1, "entrypoint": "", "name": "peer"}


@cache
def loaded(server):
    """The module of a server."""
    import nemo_gym

    folder = os.path.join(os.path.dirname(os.path.dirname(nemo_gym.__file__)), "resources_servers", server)
    sys.path.insert(0, folder)
    return importlib.import_module(f"resources_servers.{server}.app")


@cache
def served(server, similarity, f1, mode):
    """(the server, the class of its requests)."""
    module = loaded(server)
    from nemo_gym.base_resources_server import SimpleResourcesServer
    from nemo_gym.server_utils import ServerClient

    kind = next(
        thing
        for thing in vars(module).values()
        if inspect.isclass(thing) and issubclass(thing, SimpleResourcesServer) and thing.__module__ == module.__name__
    )
    settings = dict(HERE)
    if mode is not None:
        settings["grading_mode"] = mode
    if server.startswith("single_step"):
        comparator = {"word_count_similarity_threshold": similarity}
        if f1:
            comparator |= {
                "parallel_tool_call_rewarding": True,
                "allow_subset": True,
                "allow_superset": True,
                "parallel_tool_call_reward_mode": "f1",
            }
        settings["tool_call_comparator_config"] = comparator
    config = kind.model_fields["config"].annotation(**settings)
    made = kind(config=config, server_client=MagicMock(spec=ServerClient))
    return made, inspect.signature(kind.verify).parameters["body"].annotation


def judge(server, body, similarity=0.1, f1=False):
    if server == "math_with_judge":
        return maths(body)
    if server == "workplace_assistant":
        return workplace(body)
    if server == "code_gen":
        return code(body)
    if server == "swerl_gen":
        return edits(body)
    mode = body.get("grading_mode") if server == "mcqa" else None
    if mode == "lenient_answer_colon_md":
        # Its requests do not take this mode, its configuration does.
        body = {key: value for key, value in body.items() if key != "grading_mode"}
    else:
        mode = None
    made, request = served(server, similarity, f1, mode)
    return asyncio.run(made.verify(request.model_validate(body))).reward


def maths(body):
    """`verify` without its judge, and without the process that it forks for each answer."""
    app = loaded("math_with_judge")
    from math_verify.metric import math_metric
    from math_verify.parser import ExprExtractionConfig, LatexExtractionConfig

    text = said(body)
    boxed = app._extract_last_boxed_answer(text)
    if boxed is None or not boxed.strip():
        return 0.0
    library = math_metric((LatexExtractionConfig(),), (ExprExtractionConfig(), LatexExtractionConfig()))
    return app._run_math_verify(library, body["expected_answer"], text)[0]


def said(body):
    return "".join(
        part["text"] for item in body["response"]["output"] if item["type"] == "message" for part in item["content"]
    )


def workplace(body):
    """`verify` itself wants a web session; all it does with it is to forget it."""
    loaded("workplace_assistant")
    from resources_servers.workplace_assistant.utils import is_correct

    calls = [item for item in body["response"]["output"] if item["type"] == "function_call"]
    return is_correct(calls, body["ground_truth"], None)


def code(body):
    """`verify` without Ray, which it only uses to run `check_correctness` on another machine."""
    import json

    loaded("code_gen")
    from lcb_integration.compute_code_generation_metrics import check_correctness
    from lcb_integration.extraction_utils import LMStyle, extract_code

    program = extract_code(said(body), LMStyle.OpenAIChat)
    if not program:
        return 0.0
    tests = body["verifier_metadata"]["unit_tests"]
    results, _ = check_correctness({"input_output": json.dumps(tests)}, program, 10, False)
    return all(result == True for result in results)  # noqa: E712 - as `verify` compares


def edits(body):
    """Whether the answer's edits apply, and to what: 1 where the files come out as `expected_files`."""
    from resources_servers.swerl_gen.eval.process_patch import FormatError, apply_code_change, parse_search_replace

    text = body["text"]
    if "<solution>" not in text or "</solution>" not in text:
        return 0.0
    text = text.split("<solution>")[1].split("</solution>")[0].strip()
    try:
        changed = apply_code_change(body["files"], parse_search_replace(text))
    except FormatError:
        return 0.0
    return bool(changed) and {**body["files"], **changed} == body["expected_files"]


if __name__ == "__main__":
    answer(judge)
