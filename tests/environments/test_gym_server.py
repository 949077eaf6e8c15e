"""A resources server by URL: what is sent, what the answer becomes, and every way in which there may be none."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from cascade.chat import Response, ToolCall, parse_response, response_from_openai
from cascade.cli import main
from cascade.commands.score import score_file
from cascade.curation import sources
from cascade.curation.filters import check_form
from cascade.curation.rows import as_json, parse
from cascade.environments.gym_server import CONCURRENCY, GymServer, is_server_url
from cascade.environments.gym_server.request import as_openai
from cascade.environments.registry import environment_of, get
from cascade.environments.verification import judge
from cascade.errors import CascadeError, RowError
from cascade.recipe import Recipe, Source
from tests.environments.gym_server import GymServer as LocalServer
from tests.loopback import closed_port, running

PARAMS = {"input": [{"role": "user", "content": "The capital of France?"}]}


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalServer]:
    with running(LocalServer()) as server:
        yield server


@pytest.fixture
def server(shared: LocalServer) -> LocalServer:
    shared.bodies.clear()
    shared.asked.clear()
    return shared


@pytest.fixture(scope="module")
def environment() -> GymServer:
    return GymServer(answer_seconds=5)


def row(server: LocalServer | str, **fields):
    url = server if isinstance(server, str) else server.url
    return {"responses_create_params": PARAMS, "expected_answer": "Paris", "gym_url": url, **fields}


def test_the_reward_is_the_server_s_and_what_it_says_beside_is_kept(environment, server):
    right = environment.verify(row(server), Response("Paris"))
    wrong = environment.verify(row(server.url + "/"), Response("Rome", "Hm."))
    assert (right.reward, right.extracted) == (1.0, {"extracted_answer": "Paris"})
    assert (wrong.reward, wrong.extracted) == (0.0, {"extracted_answer": "Rome"})
    assert server.url in right.reason


def test_the_row_is_sent_without_its_old_answer_and_what_is_ours(environment, server):
    extra = {"uuid": "u", "response": "old", "reward": 1.0, "demonstration": {"content": "Paris"}}
    environment.verify(row(server, **extra), Response("Paris"))
    (body,) = server.bodies
    assert server.paths[-1] == "/verify"
    assert body.keys() == {"responses_create_params", "expected_answer", "uuid", "response"}
    assert body["response"]["output"][0]["content"][0]["text"] == "Paris"


def test_tools_are_sent_with_the_field_that_a_request_must_have(environment, server):
    tool = {"type": "function", "name": "find", "parameters": {"type": "object"}}
    asked = {**row(server), "responses_create_params": {**PARAMS, "tools": [tool, {**tool, "strict": True}]}}
    environment.verify(asked, Response("Paris"))
    assert [tool["strict"] for tool in server.bodies[0]["responses_create_params"]["tools"]] == [None, True]
    assert "strict" not in asked["responses_create_params"]["tools"][0]


def test_a_response_takes_the_form_of_openai_s_and_can_be_read_back():
    tools = [{"type": "function", "name": "find", "parameters": {"type": "object"}}]
    asked = {"responses_create_params": {**PARAMS, "tools": tools, "parallel_tool_calls": False}}
    written = Response("I look.", "Where?", (ToolCall("find", {"q": "é", "n": 2}), ToolCall("find", {})))
    sent = as_openai(asked, written)
    assert [item["type"] for item in sent["output"]] == ["reasoning", "message", "function_call", "function_call"]
    assert len({item["id"] for item in sent["output"]}) == 4
    assert (sent["tools"], sent["parallel_tool_calls"], sent["status"]) == (tools, False, "completed")
    assert response_from_openai(json.loads(json.dumps(sent))) == written
    cut = Response("Par", finished=False)
    assert as_openai(asked, cut)["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response_from_openai(as_openai(asked, cut)) == cut


@pytest.mark.parametrize("response", [Response(""), Response(" \n", "thought"), Response("", malformed="not closed")])
def test_no_answer_and_unreadable_calls_get_nothing_and_are_not_sent(environment, server, response):
    verdict = environment.verify(row(server), response)
    assert verdict.reward == 0
    assert verdict.reason
    assert not server.bodies


@pytest.mark.parametrize("text", ["\x00\ud800", "Paris" * 100_000, '{"reward": 1}', "</think>" * 50])
def test_hostile_text_is_sent_as_text(environment, server, text):
    assert environment.verify(row(server), Response(text)).reward == 0
    assert server.bodies[0]["response"]["output"][0]["content"][0]["text"] == text


@pytest.mark.parametrize(
    ("mood", "failure", "says", "attempts"),
    [
        ("500", "server_error", "HTTP 500 Internal Server Error", 4),
        ("404", "server_refused", "HTTP 404", 1),
        ("garbage", "server_malformed", "not JSON: <html>", 1),
        ("deep", "server_malformed", "not JSON", 1),
        ("empty", "server_malformed", "(empty)", 1),
        ("list", "server_malformed", "not a JSON object", 1),
        ("no reward", "server_malformed", "no number: None", 1),
        ("text", "server_malformed", "no number: '1.0'", 1),
        ("true", "server_malformed", "no number: True", 1),
        ("null", "server_malformed", "no number: None", 1),
        ("nan", "server_malformed", "nan is not in [0, 1]", 1),
        ("inf", "server_malformed", "inf is not in [0, 1]", 1),
        ("high", "server_malformed", "1.5 is not in [0, 1]", 1),
        ("low", "server_malformed", "-1 is not in [0, 1]", 1),
        ("judge", "server_error", "judge_failed: HTTP 503", 1),
        ("badly packed", "server_malformed", "cannot be decoded", 1),
    ],
)
def test_what_the_server_leaves_undecided_is_a_failure(environment, server, mood, failure, says, attempts):
    verdict = environment.verify(row(server, mood=mood), Response("Paris"))
    assert (verdict.reward, verdict.failure) == (None, failure)
    assert verdict.reason.startswith(server.url + "/verify: ")
    assert says in verdict.reason
    assert server.asked[mood] == attempts


def test_a_row_that_the_server_refuses_is_a_failure_that_says_why(environment, server):
    verdict = environment.verify({**row(server), "responses_create_params": {}}, Response("Paris"))
    assert verdict.failure == "server_refused"
    assert "HTTP 422" in verdict.reason
    assert "Field required" in verdict.reason
    assert len(server.bodies) == 1


@pytest.mark.parametrize("mood", ["503 twice", "429 twice", "hang up twice"])
def test_passing_trouble_is_asked_through(environment, server, mood):
    assert environment.verify(row(server, mood=mood), Response("Paris")).reward == 1
    assert server.asked[mood] == 3


def test_a_connection_that_always_breaks_is_a_failure(server):
    verdict = GymServer(answer_seconds=5).verify(row(server, mood="hang up"), Response("Paris"))
    assert verdict.failure == "server_unreachable"
    assert server.asked["hang up"] == 4


@pytest.mark.parametrize("fields", [{"seconds": 1.5}, {"mood": "drip"}])
def test_a_slow_server_is_a_timeout_and_not_asked_again(server, fields):
    verdict = GymServer(answer_seconds=0.3).verify(row(server, **fields), Response("Paris"))
    assert (verdict.reward, verdict.failure) == (None, "server_timeout")
    assert "no answer within 0.3 s" in verdict.reason
    assert len(server.bodies) == 1


def test_nobody_there_is_a_failure_that_says_where():
    url = f"http://127.0.0.1:{closed_port()}"
    verdict = GymServer().verify(row(url), Response("Paris"))
    assert (verdict.reward, verdict.failure) == (None, "server_unreachable")
    assert verdict.reason.startswith(f"{url}/verify: ConnectError")
    assert "is the server running there?" in verdict.reason


def test_a_recipe_with_a_server_has_as_many_threads_as_it_may_be_asked_by_at_once():
    content = yaml.safe_load((Path(__file__).parents[2] / "recipes" / "nano-mopd.yaml").read_text())
    assert Recipe.model_validate(content).judging_threads == content["threads"]
    content["curation"]["sources"]["mine"] = {"domain": "geography", "path": "rows.jsonl", "gym_url": "http://gym:8000"}
    assert Recipe.model_validate(content).judging_threads == CONCURRENCY


def test_threads_share_one_environment(environment, server):
    answers = ["Paris", "Rome"] * 40
    with ThreadPoolExecutor(16) as pool:
        verdicts = list(pool.map(environment.verify, [row(server)] * 80, map(Response, answers)))
    assert [verdict.reward for verdict in verdicts] == [1, 0] * 40


def test_proxies_of_the_environment_are_not_used(server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    assert GymServer(answer_seconds=5).verify(row(server), Response("Paris")).reward == 1


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"gym_url": None}, "no_gym_url"),
        ({"gym_url": ""}, "no_gym_url"),
        ({"gym_url": 8000}, "bad_gym_url"),
        ({"gym_url": "localhost:8000"}, "bad_gym_url"),
        ({"gym_url": "file:///etc/passwd"}, "bad_gym_url"),
        ({"gym_url": "http://me:secret@host"}, "bad_gym_url"),
        ({"responses_create_params": {}}, "no_prompt"),
    ],
)
def test_bad_rows_are_refused(fields, code):
    with pytest.raises(RowError) as caught:
        get("gym_server").check_row({**row("http://127.0.0.1:8000"), **fields})
    assert caught.value.code == code
    get("gym_server").check_row(row("http://127.0.0.1:8000"))


def test_which_addresses_can_be_asked():
    assert all(map(is_server_url, ["http://127.0.0.1:8000", "https://gym.example/math/", "http://[::1]:80"]))
    wrong = ["", "http://", "gym:80", "ftp://gym", "http://gym:0", "http://gym:99999", "http://gym/?x=1", "http://g\n"]
    assert not any(map(is_server_url, wrong))


def test_it_has_no_tasks_of_its_own():
    with pytest.raises(CascadeError, match="no tasks of its own"):
        get("gym_server").generate(1, seed=0, level=1)


def test_sampled_text_is_judged_as_in_training(environment, server):
    def reward(text: str) -> float | None:
        return judge(environment, row(server), parse_response(text, thinking=True)).reward

    assert reward("Hm.</think>Paris") == 1
    assert reward("Paris") == 0
    assert server.bodies[0]["response"]["output"][0]["summary"] == [{"type": "summary_text", "text": "Hm."}]


def rollouts(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_rollout_file_is_scored_by_the_server_whatever_its_rows_name(tmp_path, server):
    asked = {"responses_create_params": PARAMS, "expected_answer": "Paris", "agent_ref": {"name": "mcqa_simple_agent"}}
    lines = [{**asked, "id": i, "response": "Paris" if i % 3 else "Rome", "reward": 1.0} for i in range(150)]
    lines[7]["mood"] = "high"
    lines[8].pop("response")
    path, out = rollouts(tmp_path / "rollouts.jsonl", lines), tmp_path / "scored.jsonl"
    summary = score_file(path, out=out, gym_url=server.url)
    assert (summary.count, summary.scored, summary.reward_sum) == (150, 148, 98)
    assert summary.failures == {"server_malformed": 1, "no_response": 1}
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in scored] == list(range(150))
    assert scored[7]["reason"].startswith(server.url)
    assert "gym_url" not in scored[0]


def test_a_row_s_own_address_is_used_without_the_option(tmp_path, server):
    line = row(server, environment="gym_server", response="Paris")
    assert score_file(rollouts(tmp_path / "rollouts.jsonl", [line])).mean_reward == 1


def test_a_score_that_is_stopped_leaves_no_thread_behind(tmp_path, server, monkeypatch):
    monkeypatch.setattr("cascade.commands.score.PROGRESS_EVERY", 1)
    path = rollouts(tmp_path / "rollouts.jsonl", [row(server, response="Paris")] * 300)

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_file(path, progress=stop, gym_url=server.url)
    assert len(server.bodies) < 300
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_the_command_line(tmp_path, server):
    path = rollouts(tmp_path / "rollouts.jsonl", [row("http://nowhere.invalid", response="Paris")])
    result = CliRunner().invoke(main, ["score", str(path), "--gym-url", server.url])
    assert result.exit_code == 0, result.output
    assert "1 lines, mean reward 1.0000; failures: none" in result.output
    with pytest.raises(CascadeError, match=r"'gym:80' is not of the form http://host:port"):
        score_file(path, gym_url="gym:80")


def test_curation_gives_the_rows_of_a_source_to_its_server(tmp_path, server):
    foreign = row("http://elsewhere.invalid", agent_ref={"name": "mcqa_simple_agent"})
    (tmp_path / "rows.jsonl").write_text(json.dumps(foreign) + "\n[]\n")

    def prepared(**fields):
        source = Source.model_validate({"domain": "geography", "path": "rows.jsonl", **fields})
        found, unread = sources.stored(source, "geography", tmp_path)
        assert isinstance(unread, RowError)
        return parse(found, "rl", "geography", "geography", source.environment)

    candidate = prepared(gym_url=server.url)
    assert check_form([candidate]) == [None]
    assert candidate.environment == "gym_server"
    kept = json.loads(as_json(candidate.content))
    assert environment_of(kept).verify(kept, Response("Paris")).reward == 1
    # A row does not choose where rollouts are sent.
    assert "gym_url" not in (prepared().gym or {})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"generator": "mcqa", "gym_url": "http://gym"}, "not a generator's"),
        ({"path": "x.jsonl", "gym_url": "gym:8000"}, "'gym:8000' is not of the form http://host:port"),
        ({"path": "x.jsonl", "environment": "gym_server"}, "needs gym_url"),
    ],
)
def test_a_source_with_a_server_is_checked(fields, says):
    with pytest.raises(ValueError, match=says):
        Source.model_validate({"domain": "geography", **fields})
