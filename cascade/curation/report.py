"""Counts of a curation: rows in and out by step, reason, domain and source; lengths; packing."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade.curation.rows import USES, Use

SAMPLES = 3


class Tally:
    """Counts rows during curation."""

    def __init__(self) -> None:
        self._wanted: Counter[tuple[str, str]] = Counter()
        self._drawn: Counter[tuple[str, str, str]] = Counter()
        self._kept: Counter[tuple[str, str, str]] = Counter()
        self._rejected: Counter[tuple[str, str, str, str, str]] = Counter()
        self._steps: dict[str, list[str]] = {use: [] for use in USES}
        self._lengths: Counter[tuple[str, int]] = Counter()
        self.packed: Counter[str] = Counter()
        self.samples: dict[tuple[str, str], dict[str, None]] = {}
        """(use, reason) → different messages of rejected rows, SAMPLES at most."""

    def want(self, use: Use, source: str, count: int) -> None:
        """`count` as in the recipe; -1 means all."""
        self._wanted[use, source] = count

    def draw(self, use: Use, source: str, domain: str, count: int = 1) -> None:
        self._drawn[use, source, domain] += count

    def reject(self, use: Use, step: str, reason: str, source: str, domain: str, count: int = 1) -> None:
        self._rejected[use, step, reason, source, domain] += count

    def sample(self, use: Use, reason: str, source: str, message: str) -> None:
        """The message of a rejected row, for the report."""
        known = self.samples.setdefault((use, reason), {})
        if len(known) < SAMPLES:
            known[f"{source}: {' '.join(message.split())[:160]}"] = None

    def enter(self, use: Use, step: str) -> None:
        """Register the steps of a use in their order."""
        if step not in self._steps[use]:
            self._steps[use].append(step)

    def keep(self, use: Use, source: str, domain: str, lengths: NDArray[np.int32]) -> None:
        """`lengths`: the tokens of each kept row."""
        self._kept[use, source, domain] += len(lengths)
        bits = np.frexp(np.maximum(0, lengths - 1).astype(np.float64))[1]  # As int.bit_length.
        for bit, count in zip(*np.unique(bits, return_counts=True), strict=True):
            self._lengths[use, int(bit)] += int(count)

    def pack(self, tokens: int, documents: int) -> None:
        self.packed.update(sequences=1, tokens=tokens, conversations=documents)

    def kept(self, use: Use, source: str) -> int:
        return sum(count for (u, s, _), count in self._kept.items() if (u, s) == (use, source))

    def commonest_reason(self, use: Use, source: str) -> str:
        reasons: Counter[str] = Counter()
        for (u, _, reason, s, _), count in self._rejected.items():
            if (u, s) == (use, source):
                reasons[reason] += count
        return ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(3)) or "nothing was drawn"

    def report(self, sequence_length: int) -> dict[str, Any]:
        """Numbers only, the same for the same data: no times, no paths."""
        packing = {name: self.packed[name] for name in ("sequences", "conversations", "tokens", "trained_tokens")}
        capacity = packing["sequences"] * sequence_length
        return {
            **{use: self._use(use) for use in USES},
            "packing": {**packing, "fill_rate": round(packing["tokens"] / capacity, 4) if capacity else 0.0},
        }

    def _use(self, use: Use) -> dict[str, Any]:
        total = sum(count for (u, *_), count in self._drawn.items() if u == use)
        steps: dict[str, Any] = {}
        rows_in = total
        for step in self._steps[use]:
            reasons: Counter[str] = Counter()
            for (u, s, reason, *_), count in self._rejected.items():
                if (u, s) == (use, step):
                    reasons[reason] += count
            steps[step] = {
                "in": rows_in,
                "out": rows_in - reasons.total(),
                "rejected": dict(sorted(reasons.items())),
            }
            rows_in -= reasons.total()
        lengths = {b: count for (u, b), count in sorted(self._lengths.items()) if u == use}
        return {
            "drawn": total,
            "kept": rows_in,
            "steps": steps,
            "domains": self._by(use, 2),
            "sources": self._by(use, 1),
            "tokens_up_to": {str(1 << b): count for b, count in lengths.items()},
        }

    def _by(self, use: Use, part: int) -> dict[str, Any]:
        """Counts of a use by source (`part` 1) or domain (2)."""
        result: dict[str, Any] = {}
        for key, count in self._drawn.items():
            if key[0] == use:
                entry = result.setdefault(key[part], {"drawn": 0, "kept": 0, "rejected": {}})
                entry["drawn"] += count
        for key, count in self._kept.items():
            if key[0] == use:
                result[key[part]]["kept"] += count
        for (u, _, reason, source, domain), count in sorted(self._rejected.items()):
            if u == use:
                rejected = result[(use, source, domain)[part]]["rejected"]
                rejected[reason] = rejected.get(reason, 0) + count
        if part == 1:
            for name, entry in result.items():
                entry["wanted"] = self._wanted[use, name]
        return result


def as_markdown(report: dict[str, Any], samples: dict[tuple[str, str], dict[str, None]]) -> str:
    """The report as Markdown, with some messages of each reason."""
    lines = ["# Curation", ""]
    packing = report["packing"]
    lines += [
        f"{packing['conversations']} conversations in {packing['sequences']} sequences: {packing['tokens']} tokens, "
        f"{packing['trained_tokens']} of them trained on; {packing['fill_rate']:.1%} full.",
        "",
    ]
    for use in USES:
        part = report[use]
        lines += [f"## {use}: {part['kept']} of {part['drawn']} rows kept", ""]
        lines += ["| step | in | out | rejected |", "| --- | ---: | ---: | --- |"]
        lines += [f"| {step} | {n['in']} | {n['out']} | {_reasons(n)} |" for step, n in part["steps"].items()]
        counts: Counter[str] = Counter()
        for step in part["steps"].values():
            counts.update(step["rejected"])
        if counts:
            lines += ["", "| rejected as | rows | for example |", "| --- | ---: | --- |"]
            for reason, count in counts.most_common():
                examples = "; ".join(samples.get((use, reason), {})).replace("|", "\\|")
                lines.append(f"| {reason} | {count} | {examples} |")
        lines += ["", "| domain | drawn | kept | rejected |", "| --- | ---: | ---: | --- |"]
        lines += [f"| {name} | {n['drawn']} | {n['kept']} | {_reasons(n)} |" for name, n in part["domains"].items()]
        lines += ["", "| source | wanted | kept |", "| --- | ---: | ---: |"]
        lines += [
            f"| {name} | {'all' if n['wanted'] < 0 else n['wanted']} | {n['kept']} |"
            for name, n in part["sources"].items()
        ]
        lines += ["", "| tokens up to | " + " | ".join(part["tokens_up_to"]) + " |"]
        lines += ["| --- |" + " ---: |" * len(part["tokens_up_to"])]
        lines += ["| rows | " + " | ".join(map(str, part["tokens_up_to"].values())) + " |", ""]
    return "\n".join(lines)


def as_metrics(report: dict[str, Any]) -> dict[str, float]:
    """The main numbers, flat, for the journal."""
    values: dict[str, float] = {f"curate/packing/{name}": value for name, value in report["packing"].items()}
    for use in USES:
        values |= {f"curate/{use}/{name}": report[use][name] for name in ("drawn", "kept")}
        for step in report[use]["steps"].values():
            values |= {f"curate/{use}/rejected/{reason}": count for reason, count in step["rejected"].items()}
        values |= {f"curate/{use}/kept/{domain}": n["kept"] for domain, n in report[use]["domains"].items()}
    return values


def _reasons(counts: dict[str, Any]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts["rejected"].items())
