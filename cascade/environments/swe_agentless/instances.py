"""One instance of an issue to solve, read from any of the three forms of row.

- SWE-bench's and SWE-Gym's: `instance_id`, `repo`, `base_commit`, `problem_statement`, `patch`, `test_patch`,
  `FAIL_TO_PASS`, `PASS_TO_PASS` (lists, or lists as JSON text), with the snapshot's `files` ({path: text}) beside them.
- NeMo Gym's `swerl_gen`: the same under `instance`; `metadata.relevant_file_contents` (as JSON text) holds the files
  that the prompt shows, `metadata.image` the container that the tests need; `mode` is `eval` (write the patch) or
  `repro-gen` (write a test that reproduces the issue).
- Our own: SWE-bench's form, and `tests` ({path: text}), pytest files that run without a container (see `checks`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from cascade.chat import Row
from cascade.environments.swe_agentless.editing import Refused, check_path
from cascade.errors import RowError

MODES = ("eval", "repro-gen")
GRADES = ("tests", "form")
TEST_FILES = ("test_*.py", "*_test.py", "conftest.py")


@dataclass(frozen=True)
class Instance:
    instance_id: str
    problem_statement: str
    patch: str
    """The golden one, a unified diff."""
    fail_to_pass: tuple[str, ...]
    """Tests as pytest names them, `path::name`."""
    pass_to_pass: tuple[str, ...]
    files: Mapping[str, str]
    """The part of the repository that may be edited, by path."""
    tests: Mapping[str, str]
    """Test files that run in the sandbox; empty where the tests need the repository's container."""
    test_paths: frozenset[str]
    """Files that hold the row's tests."""
    repo: str | None = None
    base_commit: str | None = None
    test_patch: str | None = None
    image: str | None = None
    mode: Literal["eval", "repro-gen"] = "eval"
    grade: Literal["tests", "form"] = "tests"
    tagged: bool = False
    """The prompt asks for the answer within `<solution>`."""
    path_prefix: int = 0
    """Leading parts of each shown path that the repository does not have."""

    def is_test(self, path: str) -> bool:
        """Whether an answer has to leave the file alone: the row's own test files, and what pytest would read."""
        parts = path.split("/")[self.path_prefix :]
        return (
            "/".join(parts) in self.test_paths
            or "tests" in parts[:-1]
            or any(fnmatchcase(parts[-1], pattern) for pattern in TEST_FILES)
        )


def load(row: Row) -> Instance:
    """Raises RowError: `no_instance`, `no_files`, `bad_path`, `no_tests_named`, `bad_mode`."""
    of_gym = isinstance(row.get("instance"), dict)
    source = row["instance"] if of_gym else row
    metadata: dict[str, Any] = row["metadata"] if isinstance(row.get("metadata"), dict) else {}
    missing = [key for key in ("problem_statement", "patch") if not isinstance(source.get(key), str)]
    if missing:
        raise RowError("no_instance", f"swe_agentless: the row has no {' and no '.join(missing)} as text")
    mode, grade = row.get("mode", "eval"), row.get("grade", "tests")
    for key, value, known in (("mode", mode, MODES), ("grade", grade, GRADES)):
        if value not in known:
            raise RowError("bad_mode", f"swe_agentless: unknown {key} {value!r}; have {', '.join(known)}")
    files = _files(metadata.get("relevant_file_contents") if of_gym else row.get("files"))
    tests = _files(row.get("tests") or {})
    fail_to_pass, pass_to_pass = _names(source, "FAIL_TO_PASS"), _names(source, "PASS_TO_PASS")
    if not fail_to_pass:
        raise RowError("no_tests_named", "swe_agentless: FAIL_TO_PASS names no test that the patch has to turn")
    if not files:
        raise RowError("no_files", "swe_agentless: the row has no file to edit; give `files` as {path: text}")
    test_patch = source.get("test_patch")
    named = {name.split("::")[0] for name in (*fail_to_pass, *pass_to_pass)}
    return Instance(
        instance_id=str(source.get("instance_id") or row.get("id") or ""),
        problem_statement=source["problem_statement"],
        patch=source["patch"],
        fail_to_pass=fail_to_pass,
        pass_to_pass=pass_to_pass,
        files=files,
        tests=tests,
        test_paths=frozenset(tests) | named | _patched(test_patch or ""),
        repo=source.get("repo"),
        base_commit=source.get("base_commit"),
        test_patch=test_patch,
        image=metadata.get("image"),
        mode=mode,
        grade=grade,
        tagged=of_gym,
        path_prefix=int(bool(metadata.get("remove_repo_name"))),
    )


def _files(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise RowError("no_files", "swe_agentless: the row's files are not given as {path: text}")
    for path in value:
        try:
            check_path(path)
        except Refused as error:
            raise RowError("bad_path", f"swe_agentless: {error}") from None
    return value


def _names(source: dict[str, Any], key: str) -> tuple[str, ...]:
    value = source.get(key)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise RowError("no_tests_named", f"swe_agentless: {key} is not a list of test names")
    return tuple(value)


def _patched(diff: str) -> set[str]:
    """Paths that a unified diff writes."""
    return {line[6:].split("\t")[0].rstrip("\r") for line in diff.split("\n") if line.startswith("+++ b/")}
