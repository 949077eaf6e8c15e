"""A server that speaks the protocol of NeMo Gym's resources servers, and misbehaves where a row asks it to."""

import json
import threading
import time
from collections import Counter
from typing import Any

from tests.loopback import BADLY_PACKED, DRIP, HANG_UP, Loopback, Reply

REQUIRED = {"id", "object", "created_at", "model", "output", "parallel_tool_calls", "tool_choice", "tools"}
"""What OpenAI's Response object cannot lack; NeMo Gym's servers refuse it otherwise."""

ANSWERS: dict[str, Reply] = {
    "500": Reply(500, b"Internal  Server\nError"),
    "404": Reply(404, b'{"detail": "Not Found"}'),
    "garbage": Reply(200, b"<html>reward: 1</html>"),
    "deep": Reply(200, b"[" * 100_000),
    "empty": Reply(200, b""),
    "list": Reply(200, b"[1.0]"),
    "no reward": Reply(200, b'{"response": {}}'),
    "text": Reply(200, b'{"reward": "1.0"}'),
    "true": Reply(200, b'{"reward": true}'),
    "null": Reply(200, b'{"reward": null}'),
    "nan": Reply(200, b'{"reward": NaN}'),
    "inf": Reply(200, b'{"reward": 1e999}'),
    "high": Reply(200, b'{"reward": 1.5}'),
    "low": Reply(200, b'{"reward": -1}'),
    "judge": Reply(200, b'{"reward": 0.0, "_ng_failure_class": "judge_failed", "_ng_failure_judge_error": "HTTP 503"}'),
    "hang up": HANG_UP,
    "drip": DRIP,
    "badly packed": BADLY_PACKED,
}
"""What the server answers to a row with this `mood`."""


class GymServer(Loopback):
    def __init__(self) -> None:
        super().__init__(self._verdict)
        self.url = self.address
        self.asked: Counter[str] = Counter()
        """Requests by mood."""
        self._counting = threading.Lock()

    def _verdict(self, body: dict[str, Any]) -> Reply:
        mood = body.get("mood", "")
        with self._counting:
            self.asked[mood] += 1
        if problem := _problem(body):
            return Reply(422, json.dumps({"detail": problem}).encode())
        if mood in ANSWERS:
            return ANSWERS[mood]
        if mood.endswith(" twice") and self.asked[mood] <= 2:
            return HANG_UP if mood == "hang up twice" else Reply(int(mood[:3]), b"busy")
        time.sleep(body.get("seconds", 0))
        messages = [item for item in body["response"]["output"] if item["type"] == "message"]
        text = "".join(part["text"] for message in messages for part in message["content"])
        reward = float(text == body["expected_answer"])
        return Reply(200, json.dumps({**body, "reward": reward, "extracted_answer": text}).encode())


def _problem(body: dict[str, Any]) -> str | None:
    if "input" not in body.get("responses_create_params", {}):
        return "responses_create_params: Field required"
    missing = REQUIRED - body.get("response", {}).keys()
    return f"response.{sorted(missing)[0]}: Field required" if missing else None
