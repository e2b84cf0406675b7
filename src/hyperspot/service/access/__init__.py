"""Who may do what: users, passwords, tokens, sessions, roles, the audit log."""
