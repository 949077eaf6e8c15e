"""Long context (walks on graphs) and code repair (edits that apply, tests that decide)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.agreement.case import Case, demonstrated, gym, gym_rows, rows
from cascade.chat import Response, Row, prompt_of, response_from_openai
from cascade.environments.swe_agentless.answers import parse_edits
from cascade.environments.swe_agentless.checks import read_checks, run_checks
from cascade.environments.swe_agentless.editing import Refused, place

NODES = {
    # name: (text with %s the right nodes, right)
    "as asked": ("Final Answer: [%s]", True),
    "after prose": ("I walk.\nFinal Answer: [%s]", True),
    "prose on the line": ("So Final Answer: [%s]", True),
    "bold": ("**Final Answer: [%s]**", True),
    "blank lines after": ("Final Answer: [%s]\n\n", True),
    "prose after": ("Final Answer: [%s]\nThat is all.", False),
    "no brackets": ("Final Answer: %s", False),
    "another heading": ("Answer: [%s]", False),
    "a node more": ("Final Answer: [%s, zzzz]", None),
    "none": ("Final Answer: []", None),
    "others": ("Final Answer: [zzzz, yyyy]", False),
    "repeated": ("Final Answer: [%s, %s]", True),
    "nothing": ("I cannot say.", False),
    "lower heading": ("final answer: [%s]", False),
}


def long_context(gym_packages: Path) -> Iterator[Case]:
    for row in gym_rows(gym_packages, "lc_niah"):
        bare = {"source": "graphwalks", **{key: value for key, value in row.items() if key != "response"}}
        nodes = json.loads(bare["expected_answer"])
        prompt = " ".join(message["content"] for message in prompt_of(bare)[0])
        for name, (text, right) in NODES.items():
            right = None if not nodes else right
            for quoted in (False, True):
                listed = ", ".join(f'"{node}"' if quoted else node for node in nodes)
                yield _graph(bare, Response(text.replace("%s", listed)), name, right)
        listed = f"Final Answer: [{', '.join(nodes)}]"
        traces = {
            "a thought of its own": "I start at the node and follow every arrow that leaves it, then I list them.",
            "a copied passage": f"Let me see. {prompt[:600]}",
            "the whole prompt": prompt,
            "short copies": " so then ".join(prompt[at : at + 40] for at in range(0, 1200, 200)),
        }
        for name, trace in traces.items():
            yield _graph(bare, Response(listed, trace), f"thought: {name}", None)
        if "response" in row:
            yield _graph(bare, response_from_openai(row["response"]), "rollout", None)


def _graph(row: Row, response: Response, origin: str, right: bool | None) -> Case:
    return Case("long_context", row, response, origin, right, gym("lc_niah", row, response))


def swe(count: int, seed: int) -> Iterator[Case]:
    """SWE-bench's report is asked with what the tests came to here; NeMo Gym's parser with the edits alone."""
    for row in rows("swe_agentless", count, seed, range(1, 6)):
        shown = demonstrated(row).content
        variants: list[tuple[str, str, bool | None]] = [("demonstration", shown, True)]
        variants.append(("replaced by nothing", _replaced(shown, ""), None))
        variants.append(("replaced by itself", _replaced(shown, None), False))
        variants.append(("replaced by an error", _replaced(shown, "    return 1 / 0"), None))
        variants.append(("a search that is not there", shown.replace("<<<<<<< SEARCH\n", "<<<<<<< SEARCH\nzzz"), False))
        variants.append(("twice the same edit", f"{shown}\n{shown}", None))
        for origin, text, right in variants:
            asks = _reported(row, text)
            if asks is not None:
                yield Case("swe_agentless", row, Response(text), origin, right, asks)
        yield from _edits(row, shown)


def _replaced(answer: str, by: str | None) -> str:
    """The answer with `by` in the place of its first replacement; None puts the searched lines there."""
    before, _, rest = answer.partition("<<<<<<< SEARCH\n")
    search, _, rest = rest.partition("\n=======\n")
    _, end, after = rest.partition("\n>>>>>>> REPLACE")
    return f"{before}<<<<<<< SEARCH\n{search}\n=======\n{search if by is None else by}{end}{after}"


def _reported(row: Row, text: str) -> dict[str, Any] | None:
    try:
        files = place(row["files"], parse_edits(text)).after
    except Refused:
        # The harness does not run what does not apply: no test passes.
        statuses = {}
    else:
        names = (*row["FAIL_TO_PASS"], *row["PASS_TO_PASS"])
        outcomes = run_checks(files, read_checks(row["tests"], names))
        statuses = {outcome.check.name: "PASSED" if outcome.passed else "FAILED" for outcome in outcomes}
    wanted = {"fail_to_pass": row["FAIL_TO_PASS"], "pass_to_pass": row["PASS_TO_PASS"]}
    return {"swebench": {"statuses": statuses, **wanted}}


def _edits(row: Row, shown: str) -> Iterator[Case]:
    """A row whose form alone is scored, against the files that the peer's own edits make."""
    form = {**row, "grade": "form"}
    expected = place(row["files"], parse_edits(shown)).after
    path = next(iter(expected))
    for origin, text, right in (
        ("edits", shown, True),
        ("edits with prose around", f"The fault is here.\n\n{shown}\n\nDone.", True),
        ("no edits", "I would change the constant.", False),
        ("a search that is not there", shown.replace("<<<<<<< SEARCH\n", "<<<<<<< SEARCH\nzzz"), False),
        ("a file that is not there", shown.replace(f"### {path}", "### missing.py"), None),
        ("lines ended as on Windows", shown.replace("\n", "\r\n"), None),
        ("another fence", shown.replace("```python", "```"), None),
        ("no fence", shown.replace("```python\n", "").replace("```", ""), None),
    ):
        body = {"text": f"<solution>\n{text}\n</solution>", "files": row["files"], "expected_files": expected}
        asks = {"nemo-gym": {"server": "swerl_gen", "body": body}}
        yield Case("swe_agentless", form, Response(text), f"form: {origin}", right, asks)


def as_swe_case(row: Row, response: Response) -> Case | None:
    asks = _reported(row, response.content)
    return None if asks is None else Case("swe_agentless", row, response, "", None, asks)
