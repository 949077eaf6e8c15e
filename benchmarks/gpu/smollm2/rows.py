"""Public data as NeMo Gym rows: mathematics, code, tool calls, structured output, multiple choice, instructions.

Each function takes the original's rows and yields ours; what has no single right answer is left out. Answers in
demonstrations have no separate reasoning: the recipe samples without thinking.
"""

import ast
import json
import re
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

from cascade import environments
from cascade.environments.instruction_following.requests import Ask, Plan, draw_asks
from cascade.utils.seeds import derive_seed

Row = dict[str, Any]

LETTERS = "ABCDEFGHIJ"


def prompt(environment: str, question: str | list[dict], answer: str | None, **fields: Any) -> Row:
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    row: Row = {"environment": environment, "responses_create_params": {"input": messages}, **fields}
    return row if answer is None else {**row, "demonstration": {"content": answer}}


def gsm8k(rows: Iterable[Row]) -> Iterator[Row]:
    """openai/grade-school-math. The steps are part of the answer, without the calculator's notes (<<48/2=24>>)."""
    for row in rows:
        steps, _, final = row["answer"].rpartition("####")
        final = final.strip().replace(",", "")
        steps = re.sub(r"<<[^>]*>>", "", steps).strip()
        question = f"{row['question'].strip()}\n\nPut the final answer within \\boxed{{}}."
        yield prompt("math", question, f"{steps}\n\\boxed{{{final}}}", expected_answer=final)


def mbpp(rows: Iterable[Row], ids: range) -> Iterator[Row]:
    """google-research/mbpp, the tasks with these ids; all its tests count, the first one is in the prompt."""
    for row in rows:
        if row["task_id"] not in ids:
            continue
        function = _tested(row["test_list"][0])
        if function is None:
            continue
        tests = [line for test in row["test_list"] for line in test.splitlines()]
        question = (
            f"{row['text'].strip()}\nIt should pass this test: `{row['test_list'][0].strip()}`\n\n"
            "Answer with the function in a Python code block."
        )
        code = row["code"].replace("\r\n", "\n").replace("\t", "    ").strip()
        yield prompt(
            "code",
            question,
            f"```python\n{code}\n```",
            prompt=row.get("test_setup_code") or "# The function is the answer's.\n",
            test="def check(candidate):\n" + "\n".join(f"    {line}" for line in tests),
            entry_point=function,
        )


def _tested(test: str) -> str | None:
    """The function that an assertion calls first."""
    try:
        calls = [node for node in ast.walk(ast.parse(test.strip())) if isinstance(node, ast.Call)]
    except SyntaxError:
        return None
    known = {"set", "sorted", "list", "tuple", "len", "abs", "round", "dict", "str", "int", "float", "isclose"}
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    return next((name for name in names if name not in known), None)


def human_eval(rows: Iterable[Row]) -> Iterator[Row]:
    """openai/human-eval."""
    for row in rows:
        question = (
            "Complete this function. Answer with the whole function in a Python code block.\n\n"
            f"```python\n{row['prompt'].strip()}\n```"
        )
        fields = {name: row[name] for name in ("prompt", "test", "entry_point", "canonical_solution")}
        yield prompt("code", question, None, **fields)


_TYPES = {"dict": "object", "float": "number", "tuple": "array"}


def bfcl_calls(rows: Iterable[Row], answers: Iterable[Row]) -> Iterator[Row]:
    """BFCL's rows whose calls are unambiguous. An argument that may be left out has to be."""
    for row, calls in _unambiguous(rows, answers):
        tools = [
            {"type": "function", "name": f["name"], "description": f["description"], "parameters": schema_of(f)}
            for f in row["function"]
        ]
        written = [{"name": name, "arguments": arguments} for name, arguments in calls]
        made: Row = prompt("tool_calling", row["question"][0], None)
        made["responses_create_params"]["tools"] = tools
        made["ground_truth"] = [{**call, "arguments": json.dumps(call["arguments"])} for call in written]
        yield {**made, "demonstration": {"content": "", "tool_calls": written}}


def bfcl_objects(rows: Iterable[Row], answers: Iterable[Row]) -> Iterator[Row]:
    """BFCL's rows with one call: its arguments are asked for as a JSON object that fits the function's schema."""
    for row, calls in _unambiguous(rows, answers):
        if len(calls) != 1 or len(row["question"][0]) != 1 or not calls[0][1]:
            continue
        [(name, arguments)] = calls
        whole = schema_of(next(f for f in row["function"] if f["name"] == name))
        properties = {key: whole["properties"].get(key, {}) for key in arguments}
        schema = json.dumps({"type": "object", "properties": properties, "required": list(properties)})
        question = (
            f"{row['question'][0][0]['content'].strip()}\n\n"
            f"Write what was asked for as a JSON object that fits this schema, and nothing else:\n{schema}"
        )
        yield prompt(
            "structured_output",
            question,
            json.dumps(arguments, ensure_ascii=False),
            schema_str=schema,
            schema_type="json",
            response_mode="text",
            expected=arguments,
        )


def schema_of(function: Row) -> Row:
    """A function's parameters as JSON Schema, whose type names BFCL's are not."""

    def of(node: Any) -> Any:
        if isinstance(node, list):
            return [of(item) for item in node]
        if not isinstance(node, dict):
            return node
        node = {key: of(value) for key, value in node.items() if key not in ("default", "optional")}
        if isinstance(node.get("type"), str):
            if node["type"] == "any":
                del node["type"]
            else:
                node["type"] = _TYPES.get(node["type"], node["type"])
        return node

    return {"type": "object", "properties": {}, **of(function["parameters"])}


def _unambiguous(rows: Iterable[Row], answers: Iterable[Row]) -> Iterator[tuple[Row, list[tuple[str, Row]]]]:
    truth = {answer["id"]: answer["ground_truth"] for answer in answers}
    for row in rows:
        try:
            yield row, [(name, _only(arguments)) for call in truth[row["id"]] for name, arguments in call.items()]
        except ValueError:
            continue


def _only(arguments: Row) -> Row:
    """Name → its one value, from BFCL's lists of accepted ones. Raises ValueError where there are several."""
    found = {}
    for name, accepted in arguments.items():
        values = [value for value in accepted if value != ""]
        if len(values) > 1:
            raise ValueError(name)
        if len(values) == len(accepted):
            found[name] = _value(values[0]) if values else ""
    return found


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        if not all(isinstance(accepted, list) for accepted in value.values()):
            raise ValueError("a value of no known form")
        return _only(value)
    return [_value(item) for item in value] if isinstance(value, list) else value


def choices(rows: Iterable[Row]) -> Iterator[Row]:
    """Multiple choice out of P3's prompts (self-instruct's copy): they end with the options, one is the completion."""
    for row in rows:
        answer = row["completion"].removesuffix("<|endoftext|>").strip()
        text, options = _options(row["prompt"])
        if answer in LETTERS and len(answer) == 1:
            letter = answer
        elif options.count(answer) == 1:
            letter = LETTERS[options.index(answer)]
        else:
            continue
        if not 2 <= len(options) <= len(LETTERS) or letter not in LETTERS[: len(options)]:
            continue
        listed = "\n".join(f"{letter}: {option}" for letter, option in zip(LETTERS, options, strict=False))
        yield prompt(
            "mcqa",
            f"{text}\n\n{listed}\n\nPut the letter of the right option within \\boxed{{}}.",
            f"\\boxed{{{letter}}}",
            options=[{letter: option} for letter, option in zip(LETTERS, options, strict=False)],
            expected_answer=letter,
        )


_OPTION = re.compile(r"^\s*(?:-|[A-J]:)\s+(.+?)\s*$")
_LEAD = re.compile(r"\s*(?:Choices|Options|Answer choices|Possible answers)?:?\s*$|\s*Which one of these answers.*$")


def _options(text: str) -> tuple[str, list[str]]:
    """The question, and the options at its end, without the letters that some have."""
    lines = text.strip().removesuffix("A:").splitlines()
    first = next((n for n, line in enumerate(lines) if _OPTION.match(line)), len(lines))
    options = [match[1] for line in lines[first:] if (match := _OPTION.match(line))]
    rest = [line for line in lines[first:] if line.strip() and not _OPTION.match(line)]
    return _LEAD.sub("", "\n".join(lines[:first])).strip(), [] if rest else options


def instructions(rows: Iterable[Row], draws: int, seed: int, longest: int = 1200) -> Iterator[Row]:
    """People's instructions (self-instruct's), each `draws` times with one or two constraints of the released types.

    The demonstration is the instruction's own answer, changed to keep the constraints where that is easy; curation
    drops those that do not.
    """
    for row in rows:
        instance = row["instances"][0]
        text = "\n\n".join(part for part in (row["instruction"].strip(), instance["input"].strip()) if part)
        if len(text) > longest:
            continue
        for draw in range(draws):
            rng = Random(derive_seed(seed, "instructions", row["id"], draw))
            plan = Plan("the")
            asks = [make(rng, plan) for make in draw_asks(rng, 1 if rng.random() < 0.6 else 2)]
            wishes = " ".join(f"{ask.wording[0].upper()}{ask.wording[1:]}." for ask in asks)
            answer = complied(instance["output"].strip(), asks)
            yield prompt(
                "instruction_following",
                f"{text}\n\n{wishes}",
                answer or None,
                instruction_id_list=[ask.id for ask in asks],
                kwargs=[ask.kwargs for ask in asks],
            )


def complied(answer: str, asks: list[Ask]) -> str:
    """The answer with the edits that its constraints ask for; wrapping and letter case last."""
    order = ("change_case", "startend:quotation")
    for ask in sorted(asks, key=lambda ask: next((n for n, name in enumerate(order, 1) if ask.id.startswith(name)), 0)):
        values = ask.kwargs or {}
        edit = {
            "change_case:english_lowercase": lambda text, v: text.lower(),
            "change_case:english_capital": lambda text, v: text.upper(),
            "punctuation:no_comma": lambda text, v: text.replace(",", ""),
            "startend:quotation": lambda text, v: '"' + text.replace('"', "'") + '"',
            "startend:end_checker": lambda text, v: f"{text} {v['end_phrase']}",
            "last_word:last_word_answer": lambda text, v: f"{text} In a word: {v['last_word']}",
            "first_word:first_word_answer": lambda text, v: f"{v['first_word']} {text}",
            "detectable_format:title": lambda text, v: f"<<Answer>>\n{text}",
            "detectable_content:postscript": lambda text, v: f"{text}\nP.S. I hope this helps.",
            "detectable_content:number_placeholders": lambda text, v: (
                text + "\n" + " ".join(["[name]", "[date]", "[place]"][: v["num_placeholders"]])
            ),
            "keywords:existence": lambda text, v: f"{text} This is about {' and '.join(v['keywords'])}.",
            "keywords:frequency": lambda text, v: f"{text} " + " ".join([f"Think of {v['keyword']}."] * v["frequency"]),
            "length_constraints:number_words": lambda text, v: (
                " ".join(text.split()[: v["num_words"] - 1]) if v["relation"] == "less than" else text
            ),
            "detectable_format:number_bullet_lists": lambda text, v: _bullets(text, v["num_bullets"]),
        }.get(ask.id)
        answer = edit(answer, values) if edit else answer
    return answer


def _bullets(text: str, count: int) -> str:
    parts = [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]
    if len(parts) < count:
        return text
    return "\n".join(f"* {part}" for part in [*parts[: count - 1], " ".join(parts[count - 1 :])])


def preferences(count: int, seed: int, levels: tuple[int, ...] = (1, 2, 3)) -> Iterator[Row]:
    """Requests that nano's preference judge knows, with demonstrations without reasoning."""
    for level in levels:
        for row in environments.get("human_preference").generate(count // len(levels), seed, level):
            yield {**row, "demonstration": {"content": row["demonstration"]["content"]}}
