"""Families of small Python functions: what each does in words, as an expression, and where useful as a loop."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One task with holes: {a}, {b}, {c} parameters, {k} and {j} constants."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    says: tuple[str, ...]
    """Each completes `returns …`."""
    plan: str
    expression: str = ""
    loop: str = ""
    level: int = 1


CONDITIONS = (
    ("even", "even", "n % 2 == 0", "Even means n % 2 == 0."),
    ("odd", "odd", "n % 2 == 1", "Odd means n % 2 == 1."),
    ("positive", "positive", "n > 0", "Positive means n > 0."),
    ("negative", "negative", "n < 0", "Negative means n < 0."),
    ("above", "greater than {k}", "n > {k}", "Greater than {k} means n > {k}."),
    ("below", "less than {k}", "n < {k}", "Less than {k} means n < {k}."),
    ("from", "at least {k}", "n >= {k}", "At least {k} means n >= {k}."),
    ("upto", "at most {k}", "n <= {k}", "At most {k} means n <= {k}."),
    ("multiple", "a multiple of {k}", "n % {k} == 0", "A multiple of {k} means n % {k} == 0."),
    ("other", "not equal to {k}", "n != {k}", "Not equal to {k} means n != {k}."),
)
CHANGES = (
    ("double", "twice {}", "n * 2", "Twice n is n * 2."),
    ("square", "the square of {}", "n * n", "The square of n is n * n."),
    ("times", "{k} times {}", "n * {k}", "{k} times n is n * {k}."),
    ("plus", "{k} plus {}", "n + {k}", "Add {k}: n + {k}."),
    ("minus", "{}, minus {k}", "n - {k}", "Take away {k}: n - {k}."),
    ("negate", "the negative of {}", "-n", "The negative of n is -n."),
)


def _composed() -> Iterator[Family]:
    for name, says, test, note in CONDITIONS:
        those = f"numbers in {{a}} that are {says}"
        yield Family(
            (f"sum_{name}", f"add_{name}"),
            ("numbers",),
            (f"the sum of the {those}", f"the total of all {those}"),
            f"{note} Add those numbers.",
            f"sum(n for n in {{a}} if {test})",
            f"total = 0\nfor n in {{a}}:\n    if {test}:\n        total += n\nreturn total",
        )
        yield Family(
            (f"count_{name}", f"number_{name}"),
            ("numbers",),
            (f"how many {those}", f"the count of {those}"),
            f"{note} Count one for each.",
            f"sum(1 for n in {{a}} if {test})",
            f"count = 0\nfor n in {{a}}:\n    if {test}:\n        count += 1\nreturn count",
        )
        yield Family(
            (f"keep_{name}", f"only_{name}"),
            ("numbers",),
            (f"a list of the {those}", f"{{a}} with only the numbers that are {says}"),
            f"{note} Keep those numbers.",
            f"[n for n in {{a}} if {test}]",
            f"result = []\nfor n in {{a}}:\n    if {test}:\n        result.append(n)\nreturn result",
        )
        yield Family(
            (f"all_{name}", f"every_{name}"),
            ("numbers",),
            (f"True if every number in {{a}} is {says}, else False", f"whether all numbers in {{a}} are {says}"),
            f"{note} Test every number with all.",
            f"all({test} for n in {{a}})",
            level=2,
        )
        yield Family(
            (f"any_{name}", f"some_{name}"),
            ("numbers",),
            (f"True if some number in {{a}} is {says}, else False", f"whether any number in {{a}} is {says}"),
            f"{note} Test the numbers with any.",
            f"any({test} for n in {{a}})",
            level=2,
        )
        yield Family(
            (f"max_{name}", f"largest_{name}"),
            ("numbers",),
            (f"the largest of the {those}, or 0 if there is none",),
            f"{note} Take max of those, default 0.",
            f"max([n for n in {{a}} if {test}], default=0)",
            level=3,
        )
        for change, phrase, value, how in CHANGES:
            yield Family(
                (f"{change}_{name}",),
                ("numbers",),
                (f"a list with {phrase.replace('{}', f'each number in {{a}} that is {says}')}",),
                f"{note} {how}",
                f"[{value} for n in {{a}} if {test}]",
                f"result = []\nfor n in {{a}}:\n    if {test}:\n        result.append({value})\nreturn result",
                level=4,
            )
    for first, second in ((x, y) for x in (*CONDITIONS[:2], CONDITIONS[8]) for y in CONDITIONS[2:8]):
        test, note = (f"{first[i]} and {second[i].replace('{k}', '{j}')}" for i in (2, 1))
        plan = f"{first[3]} {second[3].replace('{k}', '{j}')} Join the tests with and."
        for name, says, value in (
            ("sum", "the sum of the numbers", "sum(n for n in {a} if TEST)"),
            ("count", "how many numbers", "sum(1 for n in {a} if TEST)"),
            ("keep", "a list of the numbers", "[n for n in {a} if TEST]"),
        ):
            yield Family(
                (f"{name}_{first[0]}_{second[0]}", f"{name}_both"),
                ("numbers",),
                (f"{says} in {{a}} that are {note}",),
                plan,
                value.replace("TEST", test),
                level=5,
            )
    for change, phrase, value, how in CHANGES:
        yield Family(
            (f"{change}_all", f"{change}_each"),
            ("numbers",),
            (f"a list with {phrase.replace('{}', 'each number in {a}')}",),
            f"{how} Do it for each number.",
            f"[{value} for n in {{a}}]",
            f"result = []\nfor n in {{a}}:\n    result.append({value})\nreturn result",
            level=2,
        )
        if change not in ("double", "square", "times"):
            continue
        yield Family(
            (f"sum_{change}",),
            ("numbers",),
            (f"the sum of {phrase.replace('{}', 'each number in {a}')}",),
            f"{how} Add them all.",
            f"sum({value} for n in {{a}})",
            f"total = 0\nfor n in {{a}}:\n    total += {value}\nreturn total",
            level=3,
        )


def _number(names: str, says: str, plan: str, expression: str, level: int = 1, loop: str = "") -> Family:
    return _family(names, "number", says, plan, expression, level, loop)


def _family(
    names: str, kinds: str, says: str, plan: str, expression: str = "", level: int = 1, loop: str = ""
) -> Family:
    return Family(tuple(names.split()), tuple(kinds.split()), tuple(says.split(" | ")), plan, expression, loop, level)


SINGLE = (
    _family("total add_all", "numbers", "the sum of {a} | the total of all of {a}", "Add with sum.", "sum({a})"),
    _family("largest biggest", "numbers", "the largest number in {a} | the maximum of {a}", "Use max.", "max({a})"),
    _family("smallest lowest", "numbers", "the smallest number in {a} | the minimum of {a}", "Use min.", "min({a})"),
    _family("size length", "numbers", "how many numbers {a} has | the length of {a}", "Use len.", "len({a})"),
    _family("first head", "numbers", "the first number of {a}", "The first index is 0.", "{a}[0]"),
    _family("last tail", "numbers", "the last number of {a}", "The last index is -1.", "{a}[-1]"),
    _family("ordered sort_up", "numbers", "{a} sorted from small to large", "Use sorted.", "sorted({a})"),
    _family(
        "sort_down falling",
        "numbers",
        "{a} sorted from large to small",
        "Use sorted with reverse.",
        "sorted({a}, reverse=True)",
        2,
    ),
    _family("backwards flip", "numbers", "{a} in reverse order", "Reverse with [::-1].", "{a}[::-1]", 2),
    _family(
        "spread gap",
        "numbers",
        "the largest number minus the smallest number of {a}",
        "Subtract min from max.",
        "max({a}) - min({a})",
        2,
    ),
    _family(
        "ends add_ends",
        "numbers",
        "the sum of the first and the last number of {a}",
        "The first is [0], the last is [-1]. Add them.",
        "{a}[0] + {a}[-1]",
        2,
    ),
    _family("unique distinct", "numbers", "the different numbers of {a}, sorted", "Use set, then sorted.",
            "sorted(set({a}))", 3),
    _family("every_other skip", "numbers", "every second number of {a}, starting with the first",
            "Step by 2: [::2].", "{a}[::2]", 3),
    _family("first_few take", "numbers", "the first {k} numbers of {a}", "Slice up to {k}.", "{a}[:{k}]", 2),
    _family("without_first rest", "numbers", "{a} without its first number", "Slice from 1.", "{a}[1:]", 2),
    _family("second_largest second", "numbers", "the second number of {a} after sorting it, or 0 if there is none",
            "Sort, then take index 1 if there are two.", "sorted({a})[1] if len({a}) > 1 else 0", 5),
    _family("average mean", "numbers", "the sum of {a} divided by its length, rounded down",
            "Divide sum by len with //.", "sum({a}) // len({a})", 3),
    _family("has contains", "numbers number", "True if {b} is in {a}, else False | whether {a} contains {b}",
            "Use the operator in.", "{b} in {a}", 2),
    _family("how_often count_of", "numbers number", "how often {b} is in {a} | the count of {b} in {a}",
            "Use count.", "{a}.count({b})", 2,
            "count = 0\nfor item in {a}:\n    if item == {b}:\n        count += 1\nreturn count"),
    _family("add_to_each shift", "numbers number", "a list with {b} added to each number of {a}",
            "Add {b} to each item.", "[item + {b} for item in {a}]", 3),
    _family("keep_above over", "numbers number", "a list of the numbers in {a} greater than {b}",
            "Keep an item when item > {b}.", "[item for item in {a} if item > {b}]", 3,
            "result = []\nfor item in {a}:\n    if item > {b}:\n        result.append(item)\nreturn result"),
    _family("product multiply", "numbers", "the product of all numbers in {a}", "Start with 1 and multiply.", "", 4,
            "result = 1\nfor n in {a}:\n    result *= n\nreturn result"),
    _family("running totals", "numbers", "a list of the running totals of {a}", "Keep a total and append it.", "", 5,
            "total = 0\nresult = []\nfor n in {a}:\n    total += n\n    result.append(total)\nreturn result"),
    _family("steps changes", "numbers", "how many numbers in {a} are greater than the number before",
            "Compare each number with the one before.", "", 5,
            "count = 0\nfor i in range(1, len({a})):\n    if {a}[i] > {a}[i - 1]:\n        count += 1\nreturn count"),
    _number("is_even even", "True if {a} is even, else False | whether {a} is even", "Even means % 2 == 0.",
            "{a} % 2 == 0"),
    _number("is_odd odd", "True if {a} is odd, else False | whether {a} is odd", "Odd means % 2 == 1.",
            "{a} % 2 == 1"),
    _number("double twice", "twice {a} | {a} doubled", "Multiply by 2.", "{a} * 2"),
    _number("square", "the square of {a}", "Multiply {a} by {a}.", "{a} * {a}"),
    _number("times multiply", "{k} times {a}", "Multiply by {k}.", "{a} * {k}"),
    _number("plus increase", "{a} plus {k}", "Add {k}.", "{a} + {k}"),
    _number("minus lower", "{a} minus {k}", "Subtract {k}.", "{a} - {k}"),
    _number("line scale", "{k} times {a} plus {j}", "Multiply by {k}, then add {j}.", "{a} * {k} + {j}", 2),
    _number("remainder rest", "the remainder of {a} divided by {k}", "The remainder is % {k}.", "{a} % {k}", 2),
    _number("divide share", "{a} divided by {k}, rounded down", "Divide with // {k}.", "{a} // {k}", 2),
    _number("divides fits", "True if {a} is a multiple of {k}, else False", "A multiple means % {k} == 0.",
            "{a} % {k} == 0", 2),
    _number("last_digit ending", "the last digit of {a}", "The last digit is % 10.", "{a} % 10", 2),
    _number("at_least floor", "{a}, but at least {k}", "Take the larger of {a} and {k}.", "max({a}, {k})", 2,
            "if {a} < {k}:\n    return {k}\nreturn {a}"),
    _number("at_most cap", "{a}, but at most {k}", "Take the smaller of {a} and {k}.", "min({a}, {k})", 2,
            "if {a} > {k}:\n    return {k}\nreturn {a}"),
    _number("size_name label", "'big' if {a} is greater than {k}, else 'small'", "Big means {a} > {k}.",
            "'big' if {a} > {k} else 'small'", 2, "if {a} > {k}:\n    return 'big'\nreturn 'small'"),
    _number("parity kind", "'even' if {a} is even, else 'odd'", "Even means % 2 == 0.",
            "'even' if {a} % 2 == 0 else 'odd'", 2, "if {a} % 2 == 0:\n    return 'even'\nreturn 'odd'"),
    _number("digit_sum digits", "the sum of the digits of {a}", "Turn {a} into text and add its digits.",
            "sum(int(d) for d in str({a}))", 3),
    _number("digit_count places", "how many digits {a} has", "Turn {a} into text and take len.", "len(str({a}))", 3),
    _family("factorial product_to", "small", "the product of the numbers from 1 to {a}",
            "Start with 1 and multiply by each number up to {a}.", "", 4,
            "result = 1\nfor i in range(1, {a} + 1):\n    result *= i\nreturn result"),
    _family("sum_to add_up", "small", "the sum of the numbers from 1 to {a}", "The range goes to {a} + 1.",
            "sum(range(1, {a} + 1))", 3, "total = 0\nfor i in range(1, {a} + 1):\n    total += i\nreturn total"),
    _family("count_to numbers_to", "small", "a list of the numbers from 1 to {a}", "The range goes to {a} + 1.",
            "list(range(1, {a} + 1))", 3),
    _family("sum_squares squares_to", "small", "the sum of the squares from 1 to {a}",
            "Square each i up to {a} and add.", "sum(i * i for i in range(1, {a} + 1))", 4,
            "total = 0\nfor i in range(1, {a} + 1):\n    total += i * i\nreturn total"),
    _family("add plus", "number number", "the sum of {a} and {b} | {a} plus {b}", "Add them.", "{a} + {b}"),
    _family("subtract difference", "number number", "{a} minus {b}", "Subtract {b} from {a}.", "{a} - {b}"),
    _family("multiply product", "number number", "the product of {a} and {b} | {a} times {b}", "Multiply them.",
            "{a} * {b}"),
    _family("larger bigger", "number number", "the larger of {a} and {b}", "Use max.", "max({a}, {b})", 1,
            "if {a} > {b}:\n    return {a}\nreturn {b}"),
    _family("smaller lesser", "number number", "the smaller of {a} and {b}", "Use min.", "min({a}, {b})", 1,
            "if {a} < {b}:\n    return {a}\nreturn {b}"),
    _family("distance gap", "number number", "the distance between {a} and {b}", "Subtract and take abs.",
            "abs({a} - {b})", 2, "if {a} > {b}:\n    return {a} - {b}\nreturn {b} - {a}"),
    _family("same equal", "number number", "True if {a} and {b} are equal, else False", "Compare with ==.",
            "{a} == {b}", 2),
    _family("clamp limit", "number number number", "{a}, but at least {b} and at most {c}",
            "Take max with {b}, then min with {c}.", "min(max({a}, {b}), {c})", 4,
            "if {a} > {c}:\n    return {c}\nif {a} < {b}:\n    return {b}\nreturn {a}"),
    _family("between inside", "number number number", "True if {a} is between {b} and {c}, else False",
            "Chain the comparisons.", "{b} <= {a} <= {c}", 4),
    _family("add_three total", "number number number", "the sum of {a}, {b} and {c}", "Add all three.",
            "{a} + {b} + {c}", 2),
    _family("reverse backwards", "word", "{a} reversed | the letters of {a} in reverse order",
            "Reverse with [::-1].", "{a}[::-1]"),
    _family("upper shout", "word", "{a} in upper case | {a} in capital letters", "Use upper.", "{a}.upper()"),
    _family("size letters", "word", "the length of {a} | how many letters {a} has", "Use len.", "len({a})"),
    _family("first_letter start", "word", "the first letter of {a}", "The first index is 0.", "{a}[0]"),
    _family("last_letter end", "word", "the last letter of {a}", "The last index is -1.", "{a}[-1]"),
    _family("first_letters prefix", "word", "the first {k} letters of {a}", "Slice up to {k}.", "{a}[:{k}]", 2),
    _family("last_letters ending", "word", "the last {k} letters of {a}", "Slice from -{k}.", "{a}[-{k}:]", 2),
    _family("repeat echo", "word", "{a} repeated {k} times", "Multiply the text by {k}.", "{a} * {k}", 2),
    _family("title capital", "word", "{a} with a capital first letter", "Use capitalize.", "{a}.capitalize()", 2),
    _family("greet hello", "word", "'hello ' followed by {a}", "Join the texts with +.", "'hello ' + {a}", 1),
    _family("is_long long", "word", "True if {a} has more than {k} letters, else False", "Compare len with {k}.",
            "len({a}) > {k}", 2),
    _family("palindrome mirror", "word", "True if {a} reads the same backwards, else False",
            "Compare {a} with its reverse.", "{a} == {a}[::-1]", 3),
    _family("vowels count_vowels", "word", "how many vowels {a} has", "Vowels are in 'aeiou'. Count one for each.",
            "sum(1 for c in {a} if c in 'aeiou')", 4,
            "count = 0\nfor c in {a}:\n    if c in 'aeiou':\n        count += 1\nreturn count"),
    _family("without_vowels drop_vowels", "word", "{a} without its vowels", "Keep c when it is not in 'aeiou'.",
            "''.join(c for c in {a} if c not in 'aeiou')", 5),
    _family("count_letter how_many", "word letter", "how often {b} is in {a}", "Use count.", "{a}.count({b})", 1,
            "count = 0\nfor item in {a}:\n    if item == {b}:\n        count += 1\nreturn count"),
    _family("remove_letter drop", "word letter", "{a} without the letter {b}", "Replace {b} with nothing.",
            "{a}.replace({b}, '')", 2),
    _family("starts_with begins", "word letter", "True if {a} starts with {b}, else False", "Use startswith.",
            "{a}.startswith({b})", 2),
    _family("ends_with finishes", "word letter", "True if {a} ends with {b}, else False", "Use endswith.",
            "{a}.endswith({b})", 2),
    _family("where find_letter", "word letter", "the index of {b} in {a}, or -1 if it is not there", "Use find.",
            "{a}.find({b})", 3),
    _family("join_words sentence", "words", "{a} joined with spaces", "Join with ' '.", "' '.join({a})", 2),
    _family("dashed join_dash", "words", "{a} joined with '-'", "Join with '-'.", "'-'.join({a})", 2),
    _family("longest", "words", "the longest word in {a}", "Use max with key len.", "max({a}, key=len)", 3),
    _family("lengths sizes", "words", "a list of the lengths of {a}", "Take len of each word.",
            "[len(w) for w in {a}]", 3, "result = []\nfor w in {a}:\n    result.append(len(w))\nreturn result"),
    _family("letters_in total_length", "words", "how many letters {a} have together", "Add len of each word.",
            "sum(len(w) for w in {a})", 3, "total = 0\nfor w in {a}:\n    total += len(w)\nreturn total"),
    _family("long_words", "words", "the words in {a} with more than {k} letters", "Keep w when len(w) > {k}.",
            "[w for w in {a} if len(w) > {k}]", 3,
            "result = []\nfor w in {a}:\n    if len(w) > {k}:\n        result.append(w)\nreturn result"),
    _family("upper_all shout_all", "words", "a list of {a} in upper case", "Use upper on each word.",
            "[w.upper() for w in {a}]", 3),
    _family("initials firsts", "words", "the first letters of {a} as one text", "Join w[0] of each word.",
            "''.join(w[0] for w in {a})", 4),
    _family("starting with_letter", "words letter", "the words in {a} that start with {b}",
            "Keep w when it starts with {b}.", "[w for w in {a} if w.startswith({b})]", 4),
)  # fmt: skip

COMPOSED = tuple(_composed())
