"""What the documentation names is there: files and headings behind links, modules of commands, results."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")])


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_commands_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
    for module in re.findall(r"-m\s+((?:benchmarks|cascade|flows)(?:\.\w+)*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def test_every_gpu_result_and_benchmark_has_its_command() -> None:
    text = (ROOT / "benchmarks" / "gpu" / "README.md").read_text()
    made = {path.name for path in (ROOT / "results" / "gpu").iterdir()}
    assert made <= set(re.findall(r"`([\w.]+)`", text.partition("\n\n## ")[0]))
    modules = {path.stem for path in (ROOT / "benchmarks" / "gpu").glob("*.py")}
    assert modules <= set(re.findall(r"benchmarks\.gpu\.(\w+)", text)) | {"two_gpus_graph"}
    assert "`two_gpus_graph`" in text
