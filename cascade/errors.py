"""Exceptions whose message is one line: what is wrong, where, what to do."""


class CascadeError(Exception):
    """An error that the user can fix. The command line prints only its message, without a traceback."""


class RecipeError(CascadeError):
    """A recipe that cannot be run; the message names the key."""


class CheckpointError(CascadeError):
    """A directory that is not the checkpoint it should be."""


class RowError(CascadeError):
    """A data row that cannot be used. `code` is the short reason by which rejected rows are counted."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class SandboxError(CascadeError):
    """A program could not be isolated, or the sandbox itself failed; no result about the program."""
