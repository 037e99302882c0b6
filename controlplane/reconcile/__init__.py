"""How intent becomes state: targets with generations, facts → plan → render → bundle, and the agents' door.

What must stay true: a reconciler takes a target's id, never a change; a bundle is a pure function of the rows of one
snapshot; a target's outcome and the end of the jobs that waited for it are one transaction; the sweep finds whatever
is not as desired without knowing why.
"""
