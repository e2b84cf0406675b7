"""Who a request comes from."""

from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["operator", "engineer", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Each may do what those before it may."""


@dataclass(frozen=True)
class Identity:
    """Who a request comes from.

    Attributes:
        name: Of the user, or `token NAME`; stands in the audit log and as the reviewer of labels.
        role: What it may do.
        kind: `session` of a browser, which takes CSRF tokens, or `token`.
        csrf_token: Expected with every change; of sessions alone.
        language: Of the pages, or None.

    Examples:
        >>> from hyperspot.service.access.identity import Identity
        >>> Identity("ann", "engineer").may("operator"), Identity("ann", "engineer").may("admin")
        (True, False)

    """

    name: str
    role: Role
    kind: Literal["session", "token"] = "token"
    csrf_token: str = ""
    language: str | None = None

    def may(self, role: Role) -> bool:
        """Whether it has this role or a higher one."""
        return ROLES.index(self.role) >= ROLES.index(role)
