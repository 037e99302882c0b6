"""What runs inside an appliance or on a host: the agent that pulls, applies and observes, and its small servers.

What must stay true: the agent knows no intent, only bundles; every apply is check all, swap, activate what changed, or
restore; it runs no command that a bundle names; ending the agent ends no packet.
"""

VERSION = "0.1.0"
"""Of the agent and the templates that it was made for; a router is to be replaced when its own is older."""
