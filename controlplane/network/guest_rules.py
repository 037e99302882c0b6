"""Rules of networks whose guests are reached by their own addresses: the IPv6 and the routing firewall.

Nothing is translated, so a rule of either direction is the network's and names guests by their own addresses. What
comes in is closed until a rule opens it; what leaves follows the offering's default, and a rule is its exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.api.context import Context
from controlplane.db.base import Row
from controlplane.errors import RuleConflict
from controlplane.identity.tags import tags_of
from controlplane.network.networks import Network
from controlplane.network.rules import rows_by_id
from controlplane.network.traffic_rules import FirewallResponse, TrafficRule, span

DIRECTIONS = ("Ingress", "Egress")


class GuestRule(TrafficRule, Row):
    """A rule that names guests by their own addresses.

    :ivar direction: ``Ingress`` or ``Egress``.
    """

    __abstract__ = True

    direction: Mapped[str] = mapped_column(String(10))

    @property
    def span(self) -> tuple[int, int]:
        """Ports, or ICMP type and code; -1 is any."""
        return span(self.start, self.end, self.icmp_type, self.icmp_code)


Rule = TypeVar("Rule", bound=GuestRule)


def guest_rule_views(ctx: Context, rows: Sequence[GuestRule], taggable: str) -> list[FirewallResponse]:
    """Show rules of either direction, as those of public addresses are shown.

    :param taggable: what their tags call them.
    """
    networks = rows_by_id(ctx.session, (Network.id, Network.uuid), (row.network_id for row in rows))
    tags, admin = tags_of(ctx, taggable, rows), ctx.caller.is_admin
    return [
        FirewallResponse(
            id=row.uuid,
            protocol=row.protocol,
            startport=row.start,
            endport=row.end,
            icmptype=row.icmp_type,
            icmpcode=row.icmp_code,
            cidrlist=",".join(row.sources),
            destcidrlist=",".join(row.destinations),
            networkid=networks[row.network_id].uuid,
            state=row.state,
            traffictype=row.direction,
            fordisplay=row.display if admin else None,
            tags=tags[row.id],
        )
        for row in rows
    ]


def rules_of(session: Session, table: type[Rule], network_id: int, direction: str) -> Sequence[Rule]:
    """Return the network's rules of a direction."""
    mine = table.network_id == network_id, table.direction == direction
    return session.scalars(select(table).where(*mine).order_by(table.id)).all()


def must_not_conflict(session: Session, rule: GuestRule) -> None:
    """Make sure that no other rule of the direction names the same protocol, ports (or type and code) and CIDRs.

    :raises RuleConflict: one does; the sentence names it.
    """
    table = type(rule)
    same = [table.network_id == rule.network_id, table.direction == rule.direction, table.protocol == rule.protocol]
    if rule.id is not None:
        same.append(table.id != rule.id)
    if rule.protocol == "icmp":
        same += [table.icmp_type == rule.icmp_type, table.icmp_code == rule.icmp_code]
    elif rule.start is not None:
        same.append(table.start.is_(None) | ((table.start <= rule.end) & (table.end >= rule.start)))
    with session.no_autoflush:
        others = session.execute(select(table.uuid, table.sources, table.destinations).where(*same)).all()
    for other in others:
        common = sorted(set(rule.sources) & set(other.sources))
        if common and set(rule.destinations) & set(other.destinations):
            raise RuleConflict(
                f"The rule conflicts with rule {other.uuid}, which names {rule.protocol} from {common[0]} as well."
            )
