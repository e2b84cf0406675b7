"""What the routes of the pages take."""

from typing import Annotated

from fastapi import Depends

from hyperspot.service.access.guard import require, require_page
from hyperspot.service.access.identity import Identity

OperatorPage = Annotated[Identity, Depends(require_page("operator"))]
"""Leads to the sign-in if nobody is signed in; of whole pages."""
EngineerPage = Annotated[Identity, Depends(require_page("engineer"))]
AdminPage = Annotated[Identity, Depends(require_page("admin"))]
Operator = Annotated[Identity, Depends(require("operator"))]
"""Answers with a problem if nobody is signed in; of changes and parts of pages."""
Engineer = Annotated[Identity, Depends(require("engineer"))]
Admin = Annotated[Identity, Depends(require("admin"))]
