"""What the rules of firewalls have in common: the packets that a rule names, and how they are said and shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, Session, declared_attr, mapped_column, relationship

from controlplane.api.command import Command
from controlplane.api.parameters import optional
from controlplane.api.responses import Response
from controlplane.db.base import Created, Owned
from controlplane.identity.tags import TagResponse
from controlplane.network import rule_text
from controlplane.network.networks import Network
from controlplane.reconcile.targets import Target


class TrafficRule(Created, Owned):
    """A rule of a network that names packets.

    :ivar start: first port, and ``end`` the last one; None is any.
    :ivar sources: CIDRs that packets come from, ``destinations`` those that they go to.
    """

    network_id: Mapped[int] = mapped_column(ForeignKey("networks.id"))
    protocol: Mapped[str] = mapped_column(String(10))
    start: Mapped[int | None]
    end: Mapped[int | None]
    icmp_type: Mapped[int | None]
    icmp_code: Mapped[int | None]
    sources: Mapped[list[str]] = mapped_column(default=list)
    destinations: Mapped[list[str]] = mapped_column(default=list)
    display: Mapped[bool] = mapped_column(default=True)
    state: Mapped[str] = mapped_column(String(20), default="Active")

    @declared_attr
    @classmethod
    def network(cls) -> Mapped[Network]:
        """The network that it is a rule of."""
        return relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its network."""
        return session.get_one(Network, self.network_id).targets(session)


@dataclass(kw_only=True)
class FirewallResponse(Response):
    """A firewall rule; CIDR lists are separated by commas."""

    id: str
    protocol: str
    startport: int | None = None
    endport: int | None = None
    icmptype: int | None = None
    icmpcode: int | None = None
    cidrlist: str
    destcidrlist: str | None = None
    ipaddress: str | None = None
    ipaddressid: str | None = None
    networkid: str
    state: str
    traffictype: str
    fordisplay: bool | None = None
    tags: list[TagResponse]


class Packets(Command):
    """The parameters that say which packets a rule names."""

    startport: int | None = optional(description="first port; without one, every port")
    endport: int | None = optional(description="last port; without one, the first is the only one")
    icmptype: int | None = optional(description="-1 is any")
    icmpcode: int | None = optional(description="-1 is any")
    cidrlist: list[str] | None = optional(description="CIDRs that packets come from; everyone unless given")

    def name_packets(self, rule: TrafficRule, protocol: str) -> None:
        """Give the rule a protocol with its ports, or its types and codes.

        :param protocol: ``tcp``, ``udp``, ``icmp`` or ``all``.
        :raises BadParameter: the parameters contradict each other.
        """
        rule.protocol = protocol
        rule.start = rule.end = rule.icmp_type = rule.icmp_code = None
        found = rule_text.span(protocol, self)
        if protocol == "icmp":
            rule.icmp_type, rule.icmp_code = found
        elif found != (rule_text.ANY, rule_text.ANY):
            rule.start, rule.end = found


def span(start: int | None, end: int | None, kind: int | None, code: int | None) -> tuple[int, int]:
    """Return ports, or ICMP type and code; -1 is any."""
    first, last = (start, end) if kind is None else (kind, code)
    return rule_text.ANY if first is None else first, rule_text.ANY if last is None else last
