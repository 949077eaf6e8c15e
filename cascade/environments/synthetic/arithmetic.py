"""Written-out arithmetic for reasoning traces: every step is one a small model can do in its head."""

import ast
import operator

_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
_APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def steps(left: int, sign: str, right: int) -> list[str]:
    """`left sign right` as equations, place value by place value; the last one ends in the result.

    steps(47, "+", 38) → ["47 + 30 = 77", "77 + 8 = 85"]
    steps(47, "*", 6) → ["40 * 6 = 240", "7 * 6 = 42", "240 + 40 = 280", "280 + 2 = 282"]
    """
    if sign == "*":
        return _product_steps(left, right)
    if right < 0:
        return _equation(left, sign, right) if right > -10 else steps(left, "-" if sign == "+" else "+", -right)
    lines, total = [], left
    for part in _places(right) or [0]:
        lines += _equation(total, sign, part)
        total = _APPLY[sign](total, part)
    return lines


def sum_steps(numbers: list[int]) -> list[str]:
    """Running totals over the numbers."""
    lines, total = [], numbers[0]
    for number in numbers[1:]:
        lines += steps(total, "+", number)
        total += number
    return lines


def expression_steps(expression: str) -> list[str]:
    """The steps of an expression of integers, `+`, `-`, `*` and parentheses, in the order of evaluation."""
    lines: list[str] = []
    _evaluate(ast.parse(expression.strip(), mode="eval").body, lines)
    return lines


def _evaluate(node: ast.expr, lines: list[str]) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _evaluate(node.operand, lines)
        if not isinstance(node.operand, ast.Constant):
            lines.append(f"-({value}) = {-value}")
        return -value
    if isinstance(node, ast.BinOp):
        left, right = _evaluate(node.left, lines), _evaluate(node.right, lines)
        sign = _OPERATORS[type(node.op)]
        lines += steps(left, sign, right)
        return _APPLY[sign](left, right)
    raise ValueError(f"not plain arithmetic: {ast.unparse(node)}")


def _product_steps(left: int, right: int) -> list[str]:
    big, small = (left, right) if abs(left) >= abs(right) else (right, left)
    if abs(big) <= 12 or small in (0, 1) or len(_places(abs(big))) == 1:
        return _equation(left, "*", right)
    sign = -1 if big < 0 else 1
    parts = [sign * place for place in _places(abs(big))]
    lines = [line for part in parts for line in _product_steps(part, small)]
    return lines + sum_steps([part * small for part in parts])


def _equation(left: int, sign: str, right: int) -> list[str]:
    return [f"{left} {sign} {right} = {_APPLY[sign](left, right)}"]


def _places(number: int) -> list[int]:
    """258 → [200, 50, 8]; zeros left out."""
    digits = str(number)
    return [int(d) * 10 ** (len(digits) - i - 1) for i, d in enumerate(digits) if d != "0"]
