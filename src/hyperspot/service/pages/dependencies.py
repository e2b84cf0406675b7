"""What the routes of the pages take."""

from typing import Annotated

from fastapi import Depends

from hyperspot.service.access.guard import Admin, Engineer, Operator, require_page
from hyperspot.service.access.identity import Identity

__all__ = ["Admin", "AdminPage", "Engineer", "EngineerPage", "Operator", "OperatorPage"]

OperatorPage = Annotated[Identity, Depends(require_page("operator"))]
"""Of whole pages: redirects to the sign-in if nobody is signed in; `Operator` answers with a problem."""
EngineerPage = Annotated[Identity, Depends(require_page("engineer"))]
AdminPage = Annotated[Identity, Depends(require_page("admin"))]
