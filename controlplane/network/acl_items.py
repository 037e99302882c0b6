"""Rules of network ACL lists: made one by one or many at once, shown, changed, moved and removed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session, joinedload

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import Records, matching, optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter
from controlplane.identity.ownership import OwnedListing
from controlplane.identity.tags import TagResponse, tags_of
from controlplane.network import acl_rules, rule_text
from controlplane.network.acl_lists import ITEM, must_be_changeable, new_list
from controlplane.network.acl_rules import ALLOW, DENY, Given
from controlplane.network.acl_trial import must_be_possible
from controlplane.network.acls import EGRESS, INGRESS, AclItem, AclList
from controlplane.network.networks import Network, require_service
from controlplane.network.rules import remove_rows, set_custom_id

LONGEST_IMPORT = 5000
NUMBERS = ("number", "startport", "endport", "icmptype", "icmpcode")
TEXTS = ("protocol", "traffictype", "action", "reason")


@dataclass(kw_only=True)
class AclItemResponse(Response):
    """A rule of a list. Ports are texts, as CloudStack's clients expect them."""

    id: str
    aclid: str
    aclname: str
    number: int
    action: str
    traffictype: str
    protocol: str
    startport: str | None = None
    endport: str | None = None
    icmptype: int | None = None
    icmpcode: int | None = None
    cidrlist: str
    reason: str | None = None
    state: str
    fordisplay: bool | None = None
    tags: list[TagResponse]


def acl_item_views(ctx: Context, rows: Sequence[AclItem]) -> list[AclItemResponse]:
    """Show rules."""
    numbers = [row.id for row in rows]
    ctx.session.scalars(select(AclItem).where(AclItem.id.in_(numbers)).options(joinedload(AclItem.acl))).all()
    tags = tags_of(ctx, ITEM, rows)
    found = []
    for row in rows:
        icmp, ports = row.protocol == "icmp", row.protocol in rule_text.WITH_PORTS and row.start != -1
        found.append(
            AclItemResponse(
                id=row.uuid,
                aclid=row.acl.uuid,
                aclname=row.acl.name,
                number=row.number,
                action=ALLOW if row.allow else DENY,
                traffictype=row.traffic,
                protocol=row.protocol,
                startport=str(row.start) if ports else None,
                endport=str(row.end) if ports else None,
                icmptype=row.start if icmp else None,
                icmpcode=row.end if icmp else None,
                cidrlist=",".join(row.cidrs),
                reason=row.reason or None,
                state=row.state,
                fordisplay=row.display if ctx.caller.is_admin else None,
                tags=tags[row.id],
            )
        )
    return found


def next_number(session: Session, acl: AclList) -> int:
    """Return the number after the list's last."""
    return (session.scalar(select(func.max(AclItem.number)).where(AclItem.list_id == acl.id)) or 0) + 1


def must_be_free(session: Session, acl: AclList, number: int, but: AclItem | None = None) -> None:
    """Make sure that no other rule of the list has the number.

    :raises BadParameter: one has; it is named.
    """
    there = AclItem.list_id == acl.id, AclItem.number == number, AclItem.id != (but.id if but else 0)
    other = session.scalar(select(AclItem.uuid).where(*there))
    if other is not None:
        raise BadParameter(
            f"Invalid parameter number value={number}: rule {other} of list {acl.name} has it; "
            f"{next_number(session, acl)} is free."
        )


def new_item(acl: AclList, number: int, given: Given) -> AclItem:
    """Make a rule of a list.

    :raises BadParameter: it cannot be one.
    """
    item = AclItem(list_id=acl.id, number=acl_rules.place(number))
    item.account_id, item.domain_id = acl.account_id, acl.domain_id
    acl_rules.write(item, given)
    return item


class CreateNetworkAcl(Command, name="createNetworkACL", answer=one("networkacl", acl_item_views), roles=EVERYONE,
                       job=True, creates=True, instance="NetworkAclItem",
                       event="NETWORK.ACL.ITEM.CREATE"):  # fmt: skip
    """Add a rule to a list: the lowest number that matches a new connection decides."""

    protocol: str = required(description="tcp, udp, icmp, all or a protocol's number")
    aclid: AclList | None = optional()
    networkid: Network | None = optional(
        description="instead of aclid: a tier, which gets a list of its own if need be"
    )
    action: str | None = optional(ALLOW, description="allow or deny")
    traffictype: str | None = optional(INGRESS, description="ingress or egress")
    cidrlist: list[str] | None = optional(description="the other end; everywhere unless given")
    startport: int | None = optional()
    endport: int | None = optional()
    icmptype: int | None = optional()
    icmpcode: int | None = optional()
    number: int | None = optional(description="the one after the last unless given")
    reason: str | None = optional(length=acl_rules.LONGEST_REASON)
    fordisplay: bool | None = optional(True, admin=True)

    def run(self, ctx: Context) -> AclItem:
        """Check, and add it."""
        acl = self._list(ctx)
        must_be_changeable(acl, "aclid")
        number = self.number if self.number is not None else next_number(ctx.session, acl)
        must_be_free(ctx.session, acl, number)
        item = new_item(acl, number, Given.of(self))
        item.display = self.fordisplay is not False
        ctx.session.add(item)
        must_be_possible(ctx.session, acl)
        ctx.touch(acl)
        return item

    def _list(self, ctx: Context) -> AclList:
        if self.aclid is not None:
            return self.aclid
        network = self.networkid
        if network is None or network.vpc is None:
            raise BadParameter("Invalid parameter aclid: say which list gets the rule, or networkid of a VPC's tier.")
        require_service(network, "NetworkACL")
        if network.acl is None or network.acl.vpc_id is None:
            network.acl = new_list(network.vpc, f"VPC_{network.vpc.name}_Tier_{network.name}_ACL"[:255])
            ctx.session.flush()
            ctx.touch(network)
        return network.acl


class ImportNetworkAcl(Command, name="importNetworkACL", answer=success(), roles=EVERYONE,
                       job=True, instance="NetworkAcl", event="NETWORK.ACL.ITEM.CREATE"):  # fmt: skip
    """Add many rules to a list at once: all of them, or none where one cannot be. CloudStack has no such command."""

    aclid: AclList = required()
    rules: Records = required(
        description="of each rule the parameters of createNetworkACL: rules[0].protocol, rules[0].number …"
    )

    def run(self, ctx: Context) -> None:
        """Check all, and add them in one transaction."""
        acl = ctx.instance = self.aclid
        must_be_changeable(acl, "aclid")
        if len(self.rules) > LONGEST_IMPORT:
            raise BadParameter(
                f"Invalid parameter rules: there are {len(self.rules)}, and one call takes {LONGEST_IMPORT}."
            )
        taken = set(ctx.session.scalars(select(AclItem.number).where(AclItem.list_id == acl.id)))
        items = []
        for index, record in enumerate(self.rules):
            try:
                items.append(self._item(acl, record, taken))
            except BadParameter as error:
                raise BadParameter(f"Invalid parameter rules[{index}]: {error.text}") from None
        ctx.session.add_all(items)
        must_be_possible(ctx.session, acl)
        ctx.touch(acl)

    @staticmethod
    def _item(acl: AclList, record: dict[str, str], taken: set[int]) -> AclItem:
        given = {name.lower(): value.strip() for name, value in record.items() if value.strip()}
        for name in given:
            if name not in (*NUMBERS, *TEXTS, "cidrlist"):
                raise BadParameter(
                    f"Invalid parameter {name}: a rule has {', '.join((*TEXTS, *NUMBERS))} and cidrlist."
                )
        numbers = {name: _whole(name, given.pop(name)) for name in NUMBERS if name in given}
        cidrs = [item.strip() for item in given.pop("cidrlist", "").split(",") if item.strip()]
        number = numbers.pop("number", max(taken, default=0) + 1)
        if number in taken:
            raise BadParameter(f"Invalid parameter number value={number}: another rule has it.")
        taken.add(number)
        if "protocol" not in given:
            raise BadParameter("Invalid parameter protocol: it is missing.")
        return new_item(acl, number, Given(cidrlist=cidrs, **given, **numbers))  # type: ignore[arg-type]


def _whole(name: str, text: str) -> int:
    if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit():
        raise BadParameter(f"Invalid parameter {name} value={text}: it must be a whole number.")
    return int(text)


class UpdateNetworkAclItem(Command, name="updateNetworkACLItem", answer=one("networkacl", acl_item_views),
                           roles=EVERYONE, job=True, instance="NetworkAclItem", envelope="createnetworkaclresponse",
                           event="NETWORK.ACL.ITEM.UPDATE"):  # fmt: skip
    """Change a rule in place."""

    id: AclItem = required()
    protocol: str | None = optional()
    action: str | None = optional()
    traffictype: str | None = optional()
    cidrlist: list[str] | None = optional()
    startport: int | None = optional()
    endport: int | None = optional()
    icmptype: int | None = optional()
    icmpcode: int | None = optional()
    number: int | None = optional()
    reason: str | None = optional(length=acl_rules.LONGEST_REASON)
    customid: str | None = optional(admin=True)
    fordisplay: bool | None = optional(admin=True)
    partialupgrade: bool | None = optional(True, description="false: what is left out goes back to its default")

    def run(self, ctx: Context) -> AclItem:
        """Check, and change what is given."""
        item = self.id
        acl = ctx.session.get_one(AclList, item.list_id)
        must_be_changeable(acl, "id")
        if self.number is not None:
            must_be_free(ctx.session, acl, acl_rules.place(self.number), item)
            item.number = self.number
        acl_rules.write(item, self._given(item))
        item.display = item.display if self.fordisplay is None else self.fordisplay
        set_custom_id(ctx, item, ITEM, self.customid)
        must_be_possible(ctx.session, acl)
        ctx.touch(acl)
        return item

    def _given(self, item: AclItem) -> Given:
        given = Given.of(self)
        if self.partialupgrade is False:
            return replace(given, protocol=self.protocol or item.protocol)
        now, named = Given.again(item), {}
        for name in Given.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None:
                named[name] = value
        if self.protocol is not None and rule_text.any_protocol(self.protocol) != item.protocol:
            now = replace(now, startport=None, endport=None, icmptype=None, icmpcode=None)
        elif self.startport is not None and self.endport is None:
            now = replace(now, endport=None)
        return replace(now, **named)


class DeleteNetworkAcl(Command, name="deleteNetworkACL", answer=success(), roles=EVERYONE, job=True,
                       instance="NetworkAclItem", event="NETWORK.ACL.ITEM.DELETE"):  # fmt: skip
    """Remove a rule from its list."""

    id: AclItem = required()

    def run(self, ctx: Context) -> None:
        """Remove it."""
        item = ctx.instance = self.id
        acl = ctx.session.get_one(AclList, item.list_id)
        must_be_changeable(acl, "id")
        ctx.touch(acl)
        remove_rows(ctx.session, AclItem, ITEM, AclItem.id == item.id)


class MoveNetworkAclItem(Command, name="moveNetworkAclItem", answer=one("networkacl", acl_item_views), roles=EVERYONE,
                         job=True, instance="NetworkAclItem", envelope="moveNetworkAclItemResponse",
                         event="NETWORK.ACL.ITEM.MOVE"):  # fmt: skip
    """Move a rule between two others of its list; those after it get higher numbers where they must."""

    id: AclItem = required()
    previousaclruleid: AclItem | None = optional(description="the rule before its new place")
    nextaclruleid: AclItem | None = optional(description="the rule after its new place")
    aclconsistencyhash: str | None = optional(description="MD5 of the ids of all rules by number: the order as seen")
    customid: str | None = optional(admin=True)

    def run(self, ctx: Context) -> AclItem:
        """Check, and renumber as little as can be, in one transaction."""
        item = self.id
        acl = ctx.session.get_one(AclList, item.list_id, with_for_update=True)
        must_be_changeable(acl, "id")
        ordered = list(ctx.session.scalars(select(AclItem).where(AclItem.list_id == acl.id).order_by(AclItem.number)))
        self._check_hash(acl, ordered)
        others = [other for other in ordered if other.id != item.id]
        where = self._index(others)
        renumber(ctx.session, [*others[:where], item, *others[where:]], item)
        set_custom_id(ctx, item, ITEM, self.customid)
        ctx.touch(acl)
        return item

    def _check_hash(self, acl: AclList, ordered: Sequence[AclItem]) -> None:
        if self.aclconsistencyhash is None:
            return
        now = hashlib.md5("".join(item.uuid for item in ordered).encode(), usedforsecurity=False).hexdigest()
        if self.aclconsistencyhash.lower() != now:
            raise BadParameter(
                f"Invalid parameter aclconsistencyhash value={self.aclconsistencyhash}: somebody changed list "
                f"{acl.name} meanwhile; look at it again."
            )

    def _index(self, others: Sequence[AclItem]) -> int:
        """Return how many of the others come before."""
        before, after = self.previousaclruleid, self.nextaclruleid
        if before is None and after is None:
            raise BadParameter("Invalid parameter previousaclruleid: give it, or nextaclruleid, or both.")
        places = {other.id: index for index, other in enumerate(others)}
        for name, other in (("previousaclruleid", before), ("nextaclruleid", after)):
            if other is not None and other.id not in places:
                raise BadParameter(f"Invalid parameter {name} value={other.uuid}: it must be another rule of the list.")
        if before is not None and after is not None and places[after.id] != places[before.id] + 1:
            raise BadParameter(
                f"Invalid parameter nextaclruleid value={after.uuid}: it does not follow rule {before.number}."
            )
        return places[before.id] + 1 if before is not None else places[after.id]  # type: ignore[union-attr]


def renumber(session: Session, ordered: Sequence[AclItem], moved: AclItem) -> None:
    """Give the moved rule the number after the one before it, and push on those that are in the way.

    The unique index holds at every moment, so they step aside first.
    """
    wanted: dict[AclItem, int] = {}
    last = 0
    for item in ordered:
        number = last + 1 if item is moved else max(item.number, last + 1)
        if number != item.number:
            wanted[item] = number
        last = number
    for item in wanted:
        item.number = -item.number
    session.flush()
    for item, number in wanted.items():
        item.number = number
    session.flush()


class ListNetworkAcls(OwnedListing, name="listNetworkACLs", answer=many("networkacl", acl_item_views),
                      roles=EVERYONE):  # fmt: skip
    """List the rules of network ACL lists, by number."""

    table = AclItem
    keywords = (AclItem.protocol, AclItem.reason)
    order = (AclItem.list_id, AclItem.number)
    taggable = ITEM

    id: AclItem | None = matching(AclItem.id)
    aclid: AclList | None = matching(AclItem.list_id)
    networkid: Network | None = optional(description="those of the list that this tier has")
    action: str | None = optional(choices=(ALLOW, DENY))
    protocol: str | None = matching(AclItem.protocol)
    traffictype: str | None = matching(AclItem.traffic, choices=(INGRESS, EGRESS))
    fordisplay: bool | None = matching(AclItem.display, admin=True)

    def owners(self, ctx: Context) -> Any:
        """Return the condition on the owner; some lists are everybody's."""
        condition = super().owners(ctx)
        if condition is None or self.account is not None or self.domainid is not None or self.projectid is not None:
            return condition
        return or_(condition, AclItem.account_id.is_(None))

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep those of the tier, and those that allow or deny."""
        del ctx
        if self.networkid is not None:
            query = query.where(AclItem.list_id == self.networkid.acl_id)
        if self.action is not None:
            query = query.where(AclItem.allow.is_(self.action == ALLOW))
        return query
