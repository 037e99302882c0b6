"""Who there is: domains, accounts, users, roles, keys, limits and tags.

What must stay true: every object has an owner, and every query is scoped by it before anything else.
"""
