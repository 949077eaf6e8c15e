"""A world of words for the driver's tests: a tokenizer with a turn-taking template, a scripted sampler, an episode."""

from concurrent.futures import Future

from cascade.environments import Episode, EpisodeEnvironment, Verdict
from cascade.rollout.base import Sample, SampleRequest
from tests.training.miniature import make_tokenizer

VOCABULARY = [
    "<pad>",
    "</s>",
    "<user>",
    "<assistant>",
    "<tool>",
    "<think>",
    "</think>",
    "go",
    "end",
    *(f"w{i}" for i in range(12)),
]
TEMPLATE = (
    "{% set last = namespace(user=-1) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<{{ m.role }}> "
    "{% if m.reasoning_content and loop.index0 > last.user %}<think> {{ m.reasoning_content }} </think> {% endif %}"
    "{{ m.content }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% if enable_thinking %}<think> {% endif %}{% endif %}"
)


def tokenizer():
    made = make_tokenizer(VOCABULARY)
    made.chat_template = TEMPLATE
    return made


class CountingEpisode(Episode):
    """Answers `go` with the next word or what the row says, ends at anything else; reward 1 for `end` at the end."""

    def __init__(self, row, log):
        self.row, self.log = row, log
        self.answers, self.said = 0, []
        self.closed = 0

    def answer(self, response):
        if self.row.get("fail") == "answer":
            raise RuntimeError("the world ended")
        self.said.append(response.content)
        if not response.content.startswith("go"):
            return None
        self.answers += 1
        return [{"role": "tool", "content": self.row.get("says", f"w{self.answers}")}]

    def verdict(self):
        if self.row.get("fail") == "verdict":
            raise RuntimeError("no verdict")
        return Verdict(float(self.said[-1:] == ["end"]), reason=" | ".join(self.said))

    def close(self):
        self.closed += 1


class Counting(EpisodeEnvironment):
    name = "counting"

    def __init__(self):
        self.started: list[CountingEpisode] = []

    def check_row(self, row):
        pass

    def start(self, row):
        if row.get("fail") == "start":
            raise RuntimeError("no world")
        self.started.append(CountingEpisode(row, self))
        return self.started[-1]

    def generate(self, count, seed, level):
        raise AssertionError("no test here generates tasks")


class Scripted:
    """Conversation i says its texts turn by turn; `</s>` at the end makes a response finished. Takes turns one
    conversation at a time, `backwards` from the last: an engine may take them in any order."""

    def __init__(self, *texts: list[str], backwards: bool = False):
        self.texts = texts
        self.backwards = backwards
        self.requests: list[list[SampleRequest]] = []

    def sample(self, requests, *, max_new_tokens, temperature=1.0, top_p=1.0, on_finish=None):
        self.requests = [[request] for request in requests]
        order = list(range(len(requests)))
        for i in reversed(order) if self.backwards else order:
            for turn, text in enumerate(self.texts[i]):
                ids = [VOCABULARY.index(word) for word in text.split()]
                assert len(ids) <= max_new_tokens
                answer = on_finish(i, Sample(ids, [-float(turn)] * len(ids), ids[-1] == 1))
                following = answer.result() if isinstance(answer, Future) else None
                if following is None:
                    assert turn == len(self.texts[i]) - 1, "the script goes on where the conversation is over"
                    break
                self.requests[i].append(following)
        return []
