import pytest

from cascade.errors import CascadeError
from cascade.evaluation.results import load_result, read_prompts
from cascade.layout import Layout
from cascade.utils.files import read_json
from tests.evaluation.project import write_evaluation


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def test_summary_by_hand(layout):
    write_evaluation(layout, "sft", {"one": [[1.0, 0.0, 0.5, 0.0], [1.0, 1.0, 1.0, 1.0]]})
    domain = read_json(layout.evaluation("sft") / "summary.json")["domains"]["one"]
    assert domain["avg@k"] == pytest.approx((0.375 + 1) / 2)
    assert domain["pass@1"] == pytest.approx((0.25 + 1) / 2)
    assert domain["pass@2"] == pytest.approx((0.5 + 1) / 2)
    assert domain["pass@4"] == 1.0
    assert domain["ci_low"] < domain["avg@k"] < domain["ci_high"]
    assert (domain["prompts"], domain["failures"], domain["truncated"], domain["length"]) == (2, 0, 0.0, 3.0)


def test_failed_verdicts_are_no_zeros(layout):
    write_evaluation(layout, "sft", {"one": [[1.0, None, 1.0, None], [0.0, 0.0, 0.0, 0.0], [None] * 4]})
    summary = read_json(layout.evaluation("sft") / "summary.json")
    domain = summary["domains"]["one"]
    assert domain["avg@k"] == 0.5
    assert domain["failures"] == 6
    assert domain["prompts"] == 2
    # Only the second prompt has four verdicts.
    assert domain["pass@4"] == 0.0


def test_mean_weighs_domains_equally(layout):
    write_evaluation(layout, "sft", {"one": [[1.0, 1.0]] * 9, "two": [[0.0, 0.0]]})
    assert read_json(layout.evaluation("sft") / "summary.json")["mean"]["avg@k"] == 0.5


def test_rollouts_and_prompts_tell_the_same(layout):
    write_evaluation(layout, "sft", {"one": [[1 / 3, 0.1], [None, 0.7]], "two": [[1.0, 0.0]]})
    result = load_result(layout, "sft")
    assert read_prompts(layout.evaluation("sft") / "prompts.csv") == result.domains
    assert result.score("one") == pytest.approx(((1 / 3 + 0.1) / 2 + 0.7) / 2)


def test_equal_lines_are_equal_bytes(layout, tmp_path):
    other = Layout(tmp_path / "other")
    for each in (layout, other):
        write_evaluation(each, "sft", {"one": [[1.0, None]]})
    for file in ("rollouts.parquet", "prompts.csv", "summary.json"):
        assert (layout.evaluation("sft") / file).read_bytes() == (other.evaluation("sft") / file).read_bytes()


@pytest.mark.parametrize(
    "text", ["", "domain,prompt_id\none,a\n", "domain,prompt_id,rollouts,solved,reward\na,b,x,1,2\n"]
)
def test_a_file_that_is_no_result(tmp_path, text):
    path = tmp_path / "prompts.csv"
    path.write_text(text)
    if text:
        with pytest.raises(CascadeError, match="not the per-prompt results"):
            read_prompts(path)
    else:
        assert read_prompts(path) == {}


def test_missing_files_are_named(layout):
    with pytest.raises(CascadeError, match=r"prompts\.csv: no such file"):
        read_prompts(layout.root / "prompts.csv")
    with pytest.raises(CascadeError, match=r"summary\.json: no such file"):
        load_result(layout, "sft")


def test_a_domain_without_results_is_named(layout):
    write_evaluation(layout, "sft", {"one": [[1.0]]})
    with pytest.raises(CascadeError, match="no results for domain 'two'"):
        load_result(layout, "sft").score("two")
