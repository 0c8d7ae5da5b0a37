"""Every exception medeval raises on purpose, named by the boundary where it happens.

MedevalError
├── UsageError            flags or a plan that cannot be carried out (exit code 2)
├── DefinitionError       a benchmark, protocol or judge file, or its name
├── DataError             rows, samples and images
├── ModelError            a request that got no reply; the sample stays unscored
│   ├── TransientModelError   the same request may succeed when sent again
│   │   └── OverloadedModelError  with fewer requests in flight, or later
│   └── FatalModelError       no request of this cell can succeed; the cell stops at once
├── ToolError             a tool call that is refused; the model reads the message
├── JudgeError            a judge that could not judge an answer
└── RecordError           the run folder: unreadable, locked, or of another run

A model's own failure (no answer, a malformed call) is a result, never an exception.
"""


class MedevalError(Exception):
    """Base of all errors medeval raises on purpose.

    `hint` says in one line how to fix it, or is None.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n\nhint: {self.hint}"


class UsageError(MedevalError):
    """Flags or a plan that cannot be carried out."""


class DefinitionError(MedevalError):
    """A definition file that cannot be found or loaded, or that contradicts itself."""


class DataError(MedevalError):
    """Rows, a sample or an image that cannot be read as declared."""


class ModelError(MedevalError):
    """A request that got no reply, through no fault of the model."""


class TransientModelError(ModelError):
    """A failure after which the same request may succeed when sent again.

    `retry_after_s` is the wait in seconds that the server asks for, or None where it names none.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class OverloadedModelError(TransientModelError):
    """A server that refuses a request because it is busy, or that answers too late."""


class FatalModelError(ModelError):
    """A failure that every further request of the cell would meet as well."""


class ToolError(MedevalError):
    """A tool call that is refused; the message is written for the model to act on."""


class JudgeError(MedevalError):
    """A judge that could not judge an answer; the verdict stays undecided."""


class RecordError(MedevalError):
    """A run folder that cannot be read, is in use, or belongs to another run."""
