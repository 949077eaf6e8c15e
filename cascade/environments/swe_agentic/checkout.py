"""A repository as an agent sees and changes it, and the tools for it.

A checkout is text by path and lies in memory alone: nothing that a model writes as a path reaches this machine's disk,
and there are no links to follow. The files exist on a disk only where the tests run, in the sandbox's scratch.
"""

from collections.abc import Callable
from typing import Any

from cascade.chat import ToolCall
from cascade.environments.swe_agentless.editing import Edit, Files, Refused, check_path, place, split_lines
from cascade.environments.swe_agentless.repository import apply_edit

MAX_RESULT = 20_000
"""Characters of a tool's result; what is beyond is cut."""
MAX_FILE = 1 << 20
"""Characters of a file; an edit that makes a larger one is refused."""
MAX_FILES = 10_000


def _tool(name: str, description: str, **parameters: str) -> dict[str, Any]:
    properties = {key: {"type": "string"} | ({"description": text} if text else {}) for key, text in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "name": name, "description": description, "parameters": schema}


TOOLS = [
    _tool("list_files", "List all files."),
    _tool("view", "Show a file.", path=""),
    _tool("search", "Find lines with a text.", text=""),
    _tool("edit", "Replace a text in a file.", path="", search="old text", replace="new text"),
    _tool("run_tests", "Run the tests."),
    _tool("submit", "Hand in the fix."),
]
"""As NeMo Gym's rows list them. All parameters are required text."""

PARAMETERS = {tool["name"]: tool["parameters"]["required"] for tool in TOOLS}


class Checkout:
    """Changed by `call` alone. `run_tests` reports on the files given to it."""

    def __init__(self, files: Files, run_tests: Callable[[Files], str]):
        self.files = dict(files)
        self.submitted = False
        self._run_tests = run_tests

    def call(self, call: ToolCall) -> str:
        """The tool's result, for the model to read; what is wrong with a call is a result, too."""
        if call.name not in PARAMETERS:
            return f"Error: no tool {call.name[:80]}"
        arguments: dict[str, str] = {}
        for name in PARAMETERS[call.name]:
            value = call.text(name)
            if value is None:
                return f"Error: {call.name} needs {name}"
            arguments[name] = value
        try:
            result = self._carry_out(call.name, **arguments)
        except Refused as reason:
            return f"Error: {reason}"
        return result if len(result) <= MAX_RESULT else f"{result[:MAX_RESULT]}\n({len(result)} characters in all)"

    def _carry_out(self, tool: str, **arguments: str) -> str:
        match tool:
            case "list_files":
                return "\n".join(self.files)
            case "view":
                return self._view(**arguments)
            case "search":
                return self._search(**arguments)
            case "edit":
                return self._edit(**arguments)
            case "run_tests":
                return self._run_tests(self.files)
        self.submitted = True
        return "Submitted"

    def _view(self, path: str) -> str:
        check_path(path)
        return self.files[path].rstrip() if path in self.files else f"Error: no file {path}"

    def _search(self, text: str) -> str:
        hits = [
            f"{path}:{number}: {line.strip()}"
            for path, source in self.files.items()
            for number, line in enumerate(source.split("\n"), 1)
            if text in line
        ]
        return "\n".join(hits) or "Nothing found"

    def _edit(self, path: str, search: str, replace: str) -> str:
        check_path(path)
        if not search and not self.files.get(path):
            edited = place(self.files, [Edit(path, (), tuple(split_lines(replace)))]).after
        else:
            # A model writes newlines alone; the file keeps its own.
            ending = "\r\n" if "\r\n" in self.files.get(path, "") else "\n"
            search, replace = (text.replace("\r\n", "\n").replace("\n", ending) for text in (search, replace))
            replaced = apply_edit(self.files, path, search, replace)
            if replaced is None:
                return "Error: the old text must be in the file once"
            edited = replaced
        if len(edited[path]) > MAX_FILE or len(edited) > MAX_FILES:
            return "Error: the repository has no room for that"
        self.files = edited
        return "Done"
