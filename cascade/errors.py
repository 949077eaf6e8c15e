"""What can be wrong, said in one line: what, where, what to do."""


class CascadeError(Exception):
    """An error the user can mend. The command line prints its message alone, without a traceback."""


class RecipeError(CascadeError):
    """A recipe that cannot be run; the message names the key."""


class CheckpointError(CascadeError):
    """A directory that is not the checkpoint it should be."""


class RowError(CascadeError):
    """A data row that cannot be used. `code` is the short reason under which rejects are counted."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class SandboxError(CascadeError):
    """A program could not be confined, or the sandbox itself broke; it says nothing about the program."""
