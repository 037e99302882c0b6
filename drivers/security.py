"""Security groups and the addresses of guests' ports: what a host is told to let pass.

The same facts hold for every host, whatever filters there: a port is known by its NIC, a group by its UUID.
"""

from __future__ import annotations

from typing import NamedTuple


class GroupRule(NamedTuple):
    """What a group lets pass (authorizeSecurityGroupIngress, authorizeSecurityGroupEgress).

    :param protocol: ``tcp``, ``udp``, ``icmp``, ``icmpv6``, ``all``, or the number of another as text.
    :param start: first port, or the ICMP type (-1 is any).
    :param end: last port, or the ICMP code (-1 is any).
    :param cidrs: of IPv4 and IPv6: where it comes from, or goes to.
    :param group: instead of ``cidrs``: the group whose members are meant; empty means none.
    """

    id: str
    protocol: str
    start: int
    end: int
    cidrs: tuple[str, ...] = ()
    group: str = ""


class SecurityGroup(NamedTuple):
    """A group with members on the host: what no rule of a guest's groups names does not come in.

    :param egress: none lets everything leave; else only what a rule of a guest's groups names.
    """

    id: str
    ingress: tuple[GroupRule, ...]
    egress: tuple[GroupRule, ...]


class GroupMembers(NamedTuple):
    """Who is meant where a rule names a group: the members on all hosts.

    :param addresses: IPv4 and IPv6, further ones of their NICs too, sorted.
    """

    group: str
    addresses: tuple[str, ...]


class PortFilter(NamedTuple):
    """What a guest's port may send, and which groups guard it.

    :param nic: the NIC's UUID; ``segment`` the one that it is plugged into.
    :param addresses: all that it may speak with, IPv4 and IPv6, further ones too; None on a network without addresses
        of its own (L2), where the MAC alone is held. Its link-local address follows from the MAC.
    :param groups: UUIDs; None where the network has no security groups.
    :param forged: the offering lets it send with any address (``forgedTransmits``): nothing is held.
    :param servers: the addresses of the network's routers, whose DNS and metadata no egress rule can take away.
    """

    nic: str
    segment: str
    mac: str
    addresses: tuple[str, ...] | None
    groups: tuple[str, ...] | None = None
    forged: bool = False
    servers: tuple[str, ...] = ()
