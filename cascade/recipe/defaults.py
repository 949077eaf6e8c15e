"""Defaults that follow from the rest of the recipe: `against`, an even `mix`, a gate's `alias`. What is quantised is
compared with the checkpoint that it was quantised from, all else with every node that is not, of the rounds that are
read.

They are filled in before validation, so that all other code reads a complete recipe.
"""

from typing import Any

from cascade.recipe.sections import EVEN

_MAKERS = ("sft", "rl", "off_policy", "distill", "repair")
_MIXED = ("rl", "off_policy", "distill", "repair")


def filled(content: Any) -> Any:
    """The recipe's content with these defaults; malformed content is left to validation."""
    if not isinstance(content, dict):
        return content
    content = {**content, **{kind: _nodes(content, kind) for kind in (*_MIXED, "qad", "gate") if kind in content}}
    rounds = {name: node.get("round") for kind in _MAKERS for name, node in _dicts(content, kind).items()}
    quantized: dict[Any, dict[str, Any]] = _dicts(content, "quantize")
    quantized |= {name: quantized.get(node.get("init"), {}) for name, node in _dicts(content, "qad").items()}
    for node in _dicts(content, "gate").values():
        form = quantized.get(node.get("candidate"), {}).get("format")
        if node.get("alias") is None and isinstance(form, str):
            node["alias"] = f"champion-{form}"
    for kind, checked in (("qad", "init"), ("gate", "candidate")):
        for node in _dicts(content, kind).values():
            # Of a qad that starts elsewhere, so that validation names its init.
            whole = quantized.get(node.get(checked), {}).get("init") or (node.get(checked) if kind == "qad" else None)
            if node.get("against") is None and whole is not None:
                node["against"] = [whole]
    for kind, reads, checked in (("repair", "reads_round", "init"), ("gate", "round", "candidate")):
        for node in _dicts(content, kind).values():
            last = node.get(reads)
            if node.get("against") is None and isinstance(last, int):
                node["against"] = [
                    name
                    for name, round in rounds.items()
                    if isinstance(round, int) and round <= last and name != node.get(checked)
                ]
    for kind in _MIXED:
        for node in _dicts(content, kind).values():
            if node.get("mix") == EVEN and (domains := _domains(content)):
                node["mix"] = {domain: 1 / len(domains) for domain in domains}
    return content


def _nodes(content: dict[str, Any], kind: str) -> Any:
    """A copy of a section, so that its nodes can be changed."""
    section = content[kind]
    if not isinstance(section, dict):
        return section
    return {name: dict(node) if isinstance(node, dict) else node for name, node in section.items()}


def _dicts(content: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    section = content.get(kind)
    if not isinstance(section, dict):
        return {}
    return {name: node for name, node in section.items() if isinstance(node, dict)}


def _domains(content: dict[str, Any]) -> list[str]:
    """The domains with RL prompts and a benchmark, in the order of the sources."""
    curation = content.get("curation")
    sources = _dicts(curation, "sources").values() if isinstance(curation, dict) else ()
    with_domain = [source for source in sources if isinstance(source.get("domain"), str)]
    benchmarks = {source["domain"] for source in with_domain if source.get("benchmark")}
    return list(dict.fromkeys(s["domain"] for s in with_domain if s.get("rl") and s["domain"] in benchmarks))
