"""Guest networks and everything on them: NICs, public addresses, rules, load balancers and the routers that serve them.

What must stay true: a rule is a row, and nothing else decides what a router does; every rule's ``targets`` are those
of its network; addresses, VNIs, MACs and ports are taken by unique indexes.
"""
