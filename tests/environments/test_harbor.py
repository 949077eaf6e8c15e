"""Harbor tasks in the sandbox: a shell, files that stay, a test script that writes the reward."""

import json
from pathlib import Path

import pytest

from cascade.chat import Response, ToolCall
from cascade.curation import sources
from cascade.environments import harbor
from cascade.environments.registry import environment_of, get
from cascade.errors import CascadeError, RowError
from cascade.recipe import Source

HARBOR = get("harbor")
TESTS = '[ "$(cat /app/answer.txt)" = 42 ]; echo $((1 - $?)) > /logs/verifier/reward.txt'


def made(root: Path, name="sum", tests=TESTS, settings="", dockerfile="FROM python:3.12-slim\nWORKDIR /app\n", **files):
    directory = root / name
    contents = {
        "task.toml": f'schema_version = "1.4"\n{settings}',
        "instruction.md": "Write the sum of 40 and 2 to answer.txt.\n",
        "tests/test.sh": f"#!/bin/bash\n{tests}\n",
        "environment/Dockerfile": dockerfile,
        **{path.replace("__", "/"): text for path, text in files.items()},
    }
    for path, text in contents.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
    return directory


def bash(*commands: str) -> Response:
    return Response("", tool_calls=tuple(ToolCall("bash", {"command": command}) for command in commands))


def test_a_task_is_a_row_with_a_shell(tmp_path):
    row = harbor.task(made(tmp_path))
    HARBOR.check_row(row)
    assert environment_of(row) is HARBOR
    assert row["responses_create_params"]["input"][0]["content"] == "Write the sum of 40 and 2 to answer.txt."
    assert row["responses_create_params"]["tools"][0]["name"] == "bash"


def test_files_stay_from_call_to_call_and_the_script_decides(tmp_path):
    row = harbor.task(made(tmp_path))
    episode = HARBOR.start(row)
    assert episode.answer(bash("pwd; echo 4 > part", "cat part; false"))[1]["content"] == "4\n(exit code 1)"
    assert episode.answer(bash("echo $(cat part)2 > answer.txt"))[0]["content"] == ""
    assert episode.answer(Response("Done.")) is None
    assert episode.verdict().reward == 1
    assert HARBOR.verify(row, bash("echo 41 > /app/answer.txt")).reward == 0
    assert HARBOR.verify(row, bash("echo 42 > /app/answer.txt")).reward == 1
    assert HARBOR.verify(row, Response("42")).reward == 0


def test_a_reward_that_the_policy_writes_is_none(tmp_path):
    row = harbor.task(made(tmp_path, tests="true"))
    verdict = HARBOR.verify(row, bash("mkdir -p /logs/verifier; echo 1 > /logs/verifier/reward.txt"))
    assert (verdict.reward, verdict.failure) == (None, "no_reward")


@pytest.mark.parametrize(
    ("script", "reward", "failure"),
    [
        ("echo 0.25 > /logs/verifier/reward.txt", 0.25, None),
        ('echo \'{"reward": 0.5, "speed": 3}\' > /logs/verifier/reward.json', 0.5, None),
        ("echo '{\"speed\": 0.75}' > /logs/verifier/reward.json", 0.75, None),
        ('echo \'{"a": 1, "b": 0}\' > /logs/verifier/reward.json', None, "bad_reward"),
        ("echo '{\"reward\": true}' > /logs/verifier/reward.json", None, "bad_reward"),
        ("echo '[]' > /logs/verifier/reward.json", None, "bad_reward"),
        ("echo nan > /logs/verifier/reward.txt", None, "bad_reward"),
        ("echo done > /logs/verifier/reward.txt", None, "bad_reward"),
        ("exit 3", None, "no_reward"),
    ],
)
def test_the_reward_file(tmp_path, script, reward, failure):
    verdict = HARBOR.verify(harbor.task(made(tmp_path, tests=script)), bash("true"))
    assert (verdict.reward, verdict.failure) == (reward, failure)


def test_what_the_dockerfile_copies_is_there_and_its_variables_are_set(tmp_path):
    dockerfile = 'FROM ubuntu:24.04\nWORKDIR /app/here\nENV MOOD="good day" LEVEL=3\nCOPY data /data\nCOPY one.txt .\n'
    directory = made(tmp_path, dockerfile=dockerfile, **{"environment/data/two.txt": "2", "environment/one.txt": "1"})
    [result] = HARBOR.start(harbor.task(directory)).answer(bash("pwd; cat one.txt /data/two.txt; echo $LEVEL"))
    assert result["content"].split() == ["/scratch/app/here", "123"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"dockerfile": "FROM python:3.12\nRUN pip install numpy\n"}, "needs_container"),
        ({"dockerfile": "FROM nvidia/cuda:12\n"}, "needs_container"),
        ({"dockerfile": "FROM python\nCOPY --from=x /a /b\n"}, "needs_container"),
        ({"settings": '[environment]\ndocker_image = "ghcr.io/me/it:1"'}, "needs_container"),
        ({"settings": "[environment]\ngpus = 1"}, "needs_container"),
        ({"settings": '[verifier]\nenvironment_mode = "separate"'}, "needs_container"),
        ({"environment/docker-compose.yaml": "services: {}"}, "needs_container"),
        ({"settings": '[[steps]]\nname = "one"'}, "bad_task"),
        ({"settings": "= nonsense"}, "no_task"),
        ({"instruction.md": " \n"}, "no_task"),
    ],
)
def test_what_cannot_be_run_here_is_refused(tmp_path, changes, code):
    with pytest.raises(RowError) as caught:
        harbor.task(made(tmp_path, **changes))
    assert caught.value.code == code


def test_hostile_calls_are_answered(tmp_path):
    episode = HARBOR.start(harbor.task(made(tmp_path)))
    said = episode.answer(Response("", tool_calls=(ToolCall("python", {}), ToolCall("bash", {}))))
    assert all(message["content"].startswith("Error: the only tool is bash") for message in said)
    said = episode.answer(
        bash("cat /etc/passwd; ls /proc | head -1; echo x > /usr/x", "head -c 100000 /dev/zero | tr '\\0' a")
    )
    assert "root:" not in said[0]["content"]
    assert len(said[1]["content"]) < 5_000
    assert episode.verdict().reward == 0


def test_a_source_names_a_glob_of_tasks(tmp_path):
    made(tmp_path / "tasks", "a")
    made(tmp_path / "tasks", "b", dockerfile="FROM python\nRUN true\n")
    source = Source.model_validate({"domain": "shell", "rl": -1, "harbor": "tasks/*"})
    found = list(sources.stored(source, "shell", tmp_path))
    assert [isinstance(one, RowError) for one in found] == [False, True]
    json.dumps(found[0])
    assert len(sources.files(source, tmp_path)) == 8
    with pytest.raises(CascadeError, match=r"curation.sources.shell.harbor: no task.toml in none/\*"):
        list(sources.stored(Source.model_validate({"domain": "shell", "harbor": "none/*"}), "shell", tmp_path))
