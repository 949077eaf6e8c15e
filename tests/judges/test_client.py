"""Questions to a chat model on loopback: their form, what becomes of its answers, counters. The transport itself has
`tests/utils/test_http_client.py`."""

import json
import time

import pytest

from cascade.judges import JudgeError, Usage
from cascade.judges.client import ChatClient
from cascade.judges.settings import JudgeEndpoint
from cascade.utils.http_client import ATTEMPTS
from tests.judges.server import completion, serving
from tests.loopback import DRIP, HANG_UP, closed_port

ASK = [{"role": "user", "content": "yes or no?"}]


def yes(text: str) -> bool:
    if text.strip() not in ("yes", "no"):
        raise ValueError("neither yes nor no")
    return text.strip() == "yes"


def failure(endpoint: JudgeEndpoint, question=ASK) -> tuple[JudgeError, ChatClient]:
    asked = ChatClient(endpoint)
    with pytest.raises(JudgeError) as caught:
        asked.ask(question, yes)
    return caught.value, asked


def test_a_question_goes_out_as_a_chat_completion_and_its_cost_is_counted():
    with serving(lambda body: "<think>no? no.</think>\nyes") as server:
        asked = ChatClient(server.endpoint(max_tokens=77))
        assert asked.ask(ASK, yes) is True
    [request] = server.bodies
    assert server.paths == ["/v1/chat/completions"]
    assert request.pop("seed") >= 0
    assert request == {
        "model": "judge", "messages": ASK, "temperature": 0.6, "top_p": 0.95,
        "max_tokens": 77,
    }  # fmt: skip
    usage = asked.take_usage()
    assert (usage.requests, usage.retries, usage.failures) == (1, 0, 0)
    assert (usage.prompt_tokens, usage.completion_tokens) == (100, 10)
    assert 0 < usage.seconds < 5
    assert asked.take_usage().requests == 0


def test_a_malformed_answer_is_asked_for_again_with_another_seed():
    answers = iter(["perhaps", "well", "no"])
    with serving(lambda body: next(answers)) as server:
        asked = ChatClient(server.endpoint())
        assert asked.ask(ASK, yes) is False
    assert len({request["seed"] for request in server.bodies}) == 3
    usage = asked.take_usage()
    assert (usage.requests, usage.retries, usage.failures, usage.completion_tokens) == (3, 2, 0, 30)


def test_the_same_question_has_the_same_seed():
    with serving(lambda body: "yes") as server:
        for _ in range(2):
            ChatClient(server.endpoint()).ask(ASK, yes)
        ChatClient(server.endpoint()).ask([{"role": "user", "content": "really?"}], yes)
    first, second, other = (request["seed"] for request in server.bodies)
    assert first == second != other


def no_choice(body: dict) -> bytes:
    return b'{"choices": []}'


def no_text(body: dict) -> bytes:
    return json.dumps({"choices": [{"message": {"content": None, "reasoning_content": "hm"}}]}).encode()


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (lambda body: "perhaps", "judge_malformed", "neither yes nor no; it wrote …'perhaps'"),
        (no_choice, "judge_malformed", "no chat completion"),
        (lambda body: b"[1]", "judge_malformed", "no chat completion"),
        (lambda body: b"<html>", "judge_malformed", "no chat completion"),
        (no_text, "judge_malformed", "max_tokens too small"),
        (lambda body: completion("yes", "length"), "judge_malformed", "cut off at max_tokens 16384"),
        (lambda body: b"[" * 100_000, "judge_malformed", "no chat completion"),
        (lambda body: 500, "judge_error", "HTTP 500 the server says no"),
        (lambda body: HANG_UP, "judge_unreachable", "is the server running there?"),
    ],
)
def test_what_stays_wrong_is_a_typed_failure_after_the_last_attempt(answer, code, said):
    with serving(answer) as server:
        error, asked = failure(server.endpoint())
    assert error.code == code
    assert said in str(error)
    assert "\n" not in str(error)
    assert len(server.bodies) == ATTEMPTS
    usage = asked.take_usage()
    assert (usage.requests, usage.retries, usage.failures) == (ATTEMPTS, ATTEMPTS - 1, 1)


@pytest.mark.parametrize(("answer", "code"), [(400, "judge_refused"), (DRIP, "judge_timeout")])
def test_what_would_only_repeat_itself_is_asked_once(answer, code):
    with serving(lambda body: answer) as server:
        error, asked = failure(server.endpoint(timeout_seconds=0.3 if answer is DRIP else 5))
    assert error.code == code
    assert (asked.take_usage().requests, len(server.bodies)) == (1, 1)


def test_nobody_there_is_unreachable():
    error, asked = failure(JudgeEndpoint(url=f"http://127.0.0.1:{closed_port()}/v1", model="judge"))
    assert error.code == "judge_unreachable"
    assert asked.take_usage().requests == ATTEMPTS


def test_many_questions_are_asked_at_once_but_no_more_than_allowed_and_answered_in_order():
    def by_parity(body: dict) -> str | int:
        time.sleep(0.03)
        number = int(body["messages"][0]["content"])
        return 500 if number == 7 else "yes" if number % 2 == 0 else "no"

    with serving(by_parity) as server:
        asked = ChatClient(server.endpoint(concurrency=4))
        found = asked.ask_all([[{"role": "user", "content": str(i)}] for i in range(20)], yes)
    assert [i for i, one in enumerate(found) if isinstance(one, JudgeError)] == [7]
    assert [one for i, one in enumerate(found) if i != 7] == [i % 2 == 0 for i in range(20) if i != 7]
    assert 2 <= server.most_at_once <= 4
    assert asked.take_usage().requests == 20 + ATTEMPTS - 1


def test_the_key_comes_from_the_environment_alone(monkeypatch):
    with serving(lambda body: "yes") as server:
        ChatClient(server.endpoint()).ask(ASK, yes)
        monkeypatch.setenv("JUDGE_API_KEY", "secret")
        ChatClient(server.endpoint()).ask(ASK, yes)
    assert [headers.get("Authorization") for headers in server.headers] == [None, "Bearer secret"]


def test_text_that_has_no_utf_8_is_asked_about_like_any_other():
    with serving(lambda body: "yes") as server:
        assert ChatClient(server.endpoint()).ask([{"role": "user", "content": "\ud800 \x00 ü"}], yes)
    assert server.bodies[0]["messages"][0]["content"] == "\ud800 \x00 ü"


def test_usage_adds_up():
    one, two = Usage(1, 2, 3, 4, 5, 0.5), Usage(10, 20, 30, 40, 50, 0.25)
    assert one + two == Usage(11, 22, 33, 44, 55, 0.75)
    assert str(one + two) == "11 requests (22 retries, 33 failures), 44 + 55 tokens, 0.8 s"
