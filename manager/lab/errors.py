"""The one error of the lab: what went wrong, why, and what to try."""

from __future__ import annotations

from manager.core.errors import UserError


class LabError(UserError):
    """Something of the lab failed or took too long. `exit_code` is 1, or 2 if nothing was started."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message, exit_code=exit_code)
