"""The database: tables, sessions, secrets at rest and migrations.

What must stay true: every conflict (address, VLAN, MAC, port, name, limit) is a unique index or a locked row, never a
check in Python; times are UTC; a row that clients may still ask about is marked removed, not deleted.
"""
