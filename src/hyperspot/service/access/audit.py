"""The audit log: who changed what."""

from typing import Any

from sqlalchemy.orm import Session

from hyperspot.service.database.tables import AuditEntry


def audit(session: Session, who: str, action: str, subject: str, **details: Any) -> None:
    """Note a change, in the transaction that makes it.

    Args:
        session: Of the change.
        who: Name of the user, `token NAME`, or `station`.
        action: For example `version.activate`.
        subject: What was changed, for example `screw/3`.
        details: JSON values; never a secret.

    Examples:
        >>> from sqlalchemy import create_engine
        >>> from sqlalchemy.orm import Session
        >>> from hyperspot.service.access.audit import audit
        >>> from hyperspot.service.database.tables import AuditEntry, Base
        >>> engine = create_engine("sqlite://")
        >>> Base.metadata.create_all(engine)
        >>> with Session(engine) as session:
        ...     audit(session, "ann", "version.activate", "screw/3", before=2)
        ...     session.flush()
        ...     session.query(AuditEntry).one().action
        'version.activate'

    """
    session.add(AuditEntry(who=who, action=action, subject=subject, details=details))
