"""The only package that knows intent: what zones, networks and machines there should be, and for whom.

What must stay true: a command checks, writes rows, raises the desired generation of what it touches and adds the job,
all in one transaction; nothing else changes intent, and nothing here reaches a device but through a bundle.
Imports run one way: app → domain packages → api → reconcile → work → db → drivers → systemvm.bundle.
"""
