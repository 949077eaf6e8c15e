"""The transport against a real server on loopback: good, slow, broken and absent; its bounds."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cascade.utils import http_client
from cascade.utils.http_client import ATTEMPTS, Client, Unanswered
from tests.loopback import BADLY_PACKED, DRIP, HANG_UP, Loopback, Reply, closed_port, no_waiting, running  # noqa: F401

OK = Reply(200, b"yes")


def ask(client: Client, url: str, read=bytes.decode, **body) -> str:
    return client.ask(url, lambda attempt: json.dumps({**body, "attempt": attempt}).encode(), read)


def failure(url: str, answer_seconds: float = 5.0, read=bytes.decode) -> Unanswered:
    with pytest.raises(Unanswered) as caught:
        ask(Client(1, answer_seconds, proxies=False), url, read)
    assert str(caught.value).startswith(url)
    assert "\n" not in str(caught.value)
    return caught.value


def test_each_attempt_has_its_own_body_and_is_reported():
    replies, sent = iter([Reply(503), HANG_UP, Reply(429), OK]), []
    with running(Loopback(lambda body: next(replies))) as server:
        client = Client(1, 5, proxies=False, sent=lambda attempt, seconds: sent.append((attempt, seconds)))
        assert ask(client, server.address) == "yes"
    assert [body["attempt"] for body in server.bodies] == [0, 1, 2, 3]
    assert [attempt for attempt, _ in sent] == [0, 1, 2, 3]
    assert all(0 < seconds < 5 for _, seconds in sent)


@pytest.mark.parametrize(
    ("reply", "kind", "says", "requests"),
    [
        (Reply(500, b"Out of\n memory"), "error", "HTTP 500 Out of memory", ATTEMPTS),
        (Reply(429), "error", "HTTP 429 (empty)", ATTEMPTS),
        (Reply(408), "error", "HTTP 408", ATTEMPTS),
        (Reply(400, b"too long"), "refused", "HTTP 400 too long", 1),
        (Reply(401), "refused", "HTTP 401", 1),
        (Reply(204), "refused", "HTTP 204", 1),
        (Reply(302, headers={"Location": "http://elsewhere.invalid"}), "refused", "HTTP 302", 1),
        (HANG_UP, "unreachable", "is the server running there?", ATTEMPTS),
        (BADLY_PACKED, "malformed", "cannot be decoded", 1),
        (DRIP, "timeout", "no answer within 0.3 s", 1),
    ],
)
def test_what_stays_wrong_is_a_typed_error_after_the_last_attempt(reply, kind, says, requests):
    with running(Loopback(lambda body: reply)) as server:
        error = failure(server.address, answer_seconds=0.3 if reply is DRIP else 5)
    assert error.kind == kind
    assert says in str(error)
    assert len(server.bodies) == requests


def test_a_server_that_says_nothing_is_a_timeout_and_not_asked_again():
    answered = threading.Event()

    def slow(body: dict) -> Reply:
        answered.wait(30)
        return OK

    with running(Loopback(slow)) as server:
        assert failure(server.address, answer_seconds=0.1).kind == "timeout"
        answered.set()
    assert len(server.bodies) == 1


def test_an_answer_without_end_is_malformed(monkeypatch):
    monkeypatch.setattr(http_client, "MAX_ANSWER", 1 << 20)
    with running(Loopback(lambda body: Reply(200, b"x" * (1 << 20) + b"x"))) as server:
        error = failure(server.address)
    assert error.kind == "malformed"
    assert "longer than 1 MiB" in str(error)


@pytest.mark.parametrize(("again", "requests"), [(True, ATTEMPTS), (False, 1)])
def test_an_answer_that_cannot_be_read_is_asked_for_again_where_that_may_help(again, requests):
    with running(Loopback(lambda body: OK)) as server:

        def refuse(content: bytes) -> str:
            raise Unanswered("malformed", f"{server.address}: {content!r} is no answer", again)

        assert failure(server.address, read=refuse).kind == "malformed"
    assert len(server.bodies) == requests


def test_retries_wait_longer_each_time(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(http_client, "BACKOFF_SECONDS", 1.0)
    monkeypatch.setattr(http_client, "sleep", waits.append)
    assert failure(f"http://127.0.0.1:{closed_port()}").kind == "unreachable"
    assert waits == [1.0, 2.0, 4.0]


def test_a_server_that_stays_away_is_given_up_so_that_nothing_stalls(monkeypatch):
    monkeypatch.setattr(http_client, "GIVE_UP_AFTER", 3)
    sent: list[int] = []
    client = Client(4, 5, proxies=False, sent=lambda attempt, seconds: sent.append(attempt))
    nowhere = f"http://127.0.0.1:{closed_port()}"
    errors = []
    for _ in range(10):
        with pytest.raises(Unanswered) as caught:
            ask(client, nowhere)
        errors.append(caught.value)
    assert {error.kind for error in errors} == {"unreachable"}
    assert len(sent) == 3 * ATTEMPTS
    assert "not asked, as it failed 3 questions in a row" in str(errors[-1])
    with running(Loopback(lambda body: OK)) as server:
        assert ask(client, server.address) == "yes", "another server is another matter"


def test_only_failures_in_a_row_give_a_server_up(monkeypatch):
    monkeypatch.setattr(http_client, "GIVE_UP_AFTER", 2)
    monkeypatch.setattr(http_client, "ATTEMPTS", 1)
    replies = iter([Reply(500), OK, Reply(500), Reply(400), Reply(500), Reply(200, b"no"), Reply(500), OK])

    def only_yes(content: bytes) -> str:
        if content != b"yes":
            raise Unanswered("malformed", "neither yes nor no")
        return "yes"

    found = []
    with running(Loopback(lambda body: next(replies))) as server:
        client = Client(1, 5, proxies=False)
        for _ in range(8):
            try:
                found.append(ask(client, server.address, only_yes))
            except Unanswered as error:
                found.append(error.kind)
    assert found == ["error", "yes", "error", "refused", "error", "malformed", "error", "yes"]


def test_any_number_of_threads_may_ask_but_no_more_at_once_than_allowed():
    def echo(body: dict) -> Reply:
        time.sleep(0.03)
        return Reply(200, str(body["number"]).encode())

    with running(Loopback(echo)) as server, ThreadPoolExecutor(12) as pool:
        client = Client(3, 5, proxies=False)
        found = list(pool.map(lambda number: ask(client, server.address, number=number), range(24)))
    assert found == [str(number) for number in range(24)]
    assert 2 <= server.most_at_once <= 3


def test_proxies_of_the_environment_are_used_only_where_they_are_meant(monkeypatch):
    monkeypatch.delenv("NO_PROXY")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    with running(Loopback(lambda body: OK)) as server:
        assert ask(Client(1, 5, proxies=False), server.address) == "yes"
        with pytest.raises(Unanswered):
            ask(Client(1, 5, proxies=True), server.address)
