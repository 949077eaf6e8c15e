# ruff: noqa: E501 - its tables are read line by line
"""IFEval's constraints, each with some settings, on texts of many shapes."""

from collections.abc import Iterator
from typing import Any

from benchmarks.agreement.case import Case, demonstrated, rows
from cascade.chat import Response, Row, prompt_of

SETTINGS: dict[str, list[dict[str, Any] | None]] = {
    "keywords:existence": [{"keywords": ["green"]}, {"keywords": ["Green", "tree"]}, {"keywords": ["C++"]}],
    "keywords:frequency": [
        {"keyword": "tree", "frequency": n, "relation": relation} for n in (1, 3) for relation in ("at least", "less than")
    ],
    "keywords:forbidden_words": [{"forbidden_words": ["tree"]}, {"forbidden_words": ["ree", "sun"]}],
    "keywords:letter_frequency": [
        {"letter": letter, "let_frequency": n, "let_relation": relation}
        for letter, n in (("e", 5), ("E", 2), ("z", 1), ("#", 1), ("!", 2))
        for relation in ("at least", "less than")
    ],
    "language:response_language": [{"language": "en"}, {"language": "de"}, {"language": "fr"}],
    "length_constraints:number_sentences": [{"num_sentences": n, "relation": r} for n in (1, 3) for r in ("at least", "less than")],
    "length_constraints:number_paragraphs": [{"num_paragraphs": n} for n in (1, 2, 3)],
    "length_constraints:number_words": [
        {"num_words": n, "relation": relation} for n in (1, 5, 10, 20) for relation in ("at least", "less than")
    ],
    "length_constraints:nth_paragraph_first_word": [
        {"num_paragraphs": n, "nth_paragraph": k, "first_word": word}
        for n, k in ((1, 1), (2, 2), (3, 2)) for word in ("the", "The", "it")
    ],
    "detectable_content:number_placeholders": [{"num_placeholders": n} for n in (1, 2, 3)],
    "detectable_content:postscript": [{"postscript_marker": "P.S."}, {"postscript_marker": "P.P.S"}],
    "detectable_format:number_bullet_lists": [{"num_bullets": n} for n in (1, 2, 3)],
    "detectable_format:constrained_response": [None],
    "detectable_format:number_highlighted_sections": [{"num_highlights": n} for n in (1, 2, 3)],
    "detectable_format:multiple_sections": [
        {"section_spliter": word, "num_sections": n} for word in ("Section", "SECTION", "Day") for n in (1, 2)
    ],
    "detectable_format:json_format": [None],
    "detectable_format:title": [None],
    "combination:two_responses": [None],
    "combination:repeat_prompt": [{"prompt_to_repeat": "Describe a tree."}],
    "startend:end_checker": [{"end_phrase": "That is all."}, {"end_phrase": "any questions?"}],
    "change_case:capital_word_frequency": [
        {"capital_frequency": n, "capital_relation": relation} for n in (1, 3) for relation in ("at least", "less than")
    ],
    "change_case:english_capital": [None],
    "change_case:english_lowercase": [None],
    "punctuation:no_comma": [None],
    "startend:quotation": [None],
}  # fmt: skip
"""All 25, with the arguments that released rows give them."""

TEXTS = (
    "The tree is green. It stands in the sun.",
    "the tree is green and the treetop is high",
    "THE TREE IS GREEN. IT STANDS IN THE SUN, TOO.",
    "Trees, trees, trees! A tree; another tree.",
    "Der Baum ist grün und steht in der Sonne. Er ist sehr alt und wächst langsam.",
    "L'arbre est vert et il pousse lentement dans la forêt près de la rivière.",
    "First part.\n***\nSecond part.",
    "First part.\n\n***\n\nSecond part.\n\n***\n\nThird part.",
    "First part. *** Second part.",
    "***\nFirst part.\n***",
    "First part.\n\n***\n\n***\n\nThird part.",
    "The first.\n\nIt is the second.\n\nThe third.",
    'The first.\n\n"The second," it said.',
    "**The** first.\n\n*It* is.",
    "The first.\n\n\n\nIt is the second.",
    "* one\n* two\n* three",
    "- one\n- two",
    "  * one\n    - two\n+ three",
    "1. one\n2. two\n3. three",
    "*one*\n*two*",
    "**one**\n* two",
    "---\nA line.\n---",
    "-5 degrees.\n- one",
    "• one\n• two",
    "This is *one* and *two* and **three**.",
    "This is **one** and **two**.",
    "2 * 3 * 4 = 24",
    "*one\ntwo*",
    "** **",
    "***one***",
    "Call [name] at [address] on [day].",
    "[[name]] and []",
    "A [name\nsplit] here and [x](http://y).",
    "Dear tree.\n\nP.S. It grows.",
    "Dear tree.\nP. S. It grows.\nP.P.S. More.",
    "Dear tree.\n\np.s. it grows.",
    "Dear tree.\nPS: It grows.",
    "My answer is yes.",
    "I think: My answer is no. Thank you.",
    "my answer is yes.",
    "My answer is yes",
    "Section 1\nText.\nSection 2\nText.",
    "SECTION 1: a\nSECTION 2: b",
    "Section I\nText.\nSection II",
    "Day 1 a, Day 2 b, Day 3 c",
    '{"a": 1}',
    '```json\n{"a": 1}\n```',
    "```\n[1, 2]\n```",
    '{"a": NaN}',
    'Here: {"a": 1}',
    "{'a': 1}",
    "7",
    "<<A tree>>\nIt is green.",
    "<< >>\nIt is green.",
    "<A tree>\nIt is green.",
    "It is green. <<A\ntree>>",
    "<<<A tree>>>",
    "A tree.\n******\nA bush.",
    "A tree. ****** A tree.",
    "A tree.\n******\nA tree.",
    "******\nA tree.\n******\nA bush.",
    "A tree.\n******\nA bush.\n******\nA flower.",
    "Describe a tree. The tree is green.",
    "describe a tree.\nThe tree is green.",
    "Here: Describe a tree. It is green.",
    "It is green. That is all.",
    "It is green. That is all",
    "It is green. THAT IS ALL.",
    'It is green. "That is all."',
    "It is green. That is all.\n\n",
    "That is all. It is green.",
    "Do you have any questions? any questions?",
    '"The tree is green."',
    '"The tree" is "green"',
    "“The tree is green.”",
    "'The tree is green.'",
    '"',
    'The tree "is" green.',
    "NASA and ESA built it. I like it.",
    "A B C d E",
    "McDonald's AT&T U.S.A. X-ray",
    "It costs 1,000 dollars.",
    "It costs 1000 dollars、no more。",
    "",
    "   \n ",
    "🌳🌳🌳",
    "12345 67890",
    "word " * 30,
    "A sentence with don't and well-known e.g. words, i.e. such as these ones here.",
    'Dr. Smith has 3.5 trees. He said: "Look!" Then he left... Really?',
    "I like C++ and C#.",
    "TREE TREE tree",
    "# A heading\n\nThe tree is green! #tree !!",
)

PROMPT = "Describe a tree."


def cases(count: int, seed: int) -> Iterator[Case]:
    for name, settings in SETTINGS.items():
        for kwargs in settings:
            row = _row([name], [kwargs])
            for number, text in enumerate(TEXTS):
                yield _case(row, Response(text), f"text {number}", None)
    for row in rows("instruction_following", count * 4, seed, range(1, 4)):
        if all(name in SETTINGS for name in row["instruction_id_list"]):
            shown = demonstrated(row)
            yield _case(row, shown, "demonstration", True)
            for origin, text in (
                ("upper case", shown.content.upper()),
                ("half", shown.content[: len(shown.content) // 2]),
                ("twice", f"{shown.content}\n{shown.content}"),
                ("quoted", f'"{shown.content}"'),
                ("in bold", f"**{shown.content}**"),
            ):
                yield _case(row, Response(text), origin, None)


def _row(names: list[str], kwargs: list[dict[str, Any] | None]) -> Row:
    asked = {"input": [{"role": "user", "content": PROMPT}]}
    return {"responses_create_params": asked, "instruction_id_list": names, "kwargs": kwargs}


def _case(row: Row, response: Response, origin: str, right: bool | None) -> Case:
    prompt = "\n".join(message["content"] for message in prompt_of(row)[0])
    request = {
        "names": row["instruction_id_list"],
        "kwargs": row["kwargs"],
        "prompt": prompt,
        "text": response.content,
    }
    return Case("instruction_following", row, response, origin, right, {"lm-eval": request})


def as_case(row: Row, response: Response) -> Case | None:
    return _case(row, response, "", None) if all(name in SETTINGS for name in row["instruction_id_list"]) else None
