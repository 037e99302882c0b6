"""Network ACL lists: made, shown, changed, put on a tier and removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, or_, select
from sqlalchemy.orm import Session, joinedload

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter, InUse
from controlplane.identity import names
from controlplane.identity.ownership import OwnedListing
from controlplane.identity.tags import taggable
from controlplane.network.acls import AclItem, AclList
from controlplane.network.networks import Network, require_service
from controlplane.network.private_gateways import PrivateGateway
from controlplane.network.rules import remove_tags, set_custom_id
from controlplane.network.tiers import choose_acl
from controlplane.network.vpcs import Vpc

ITEM, LIST = "NetworkACL", "NetworkACLList"
"""The resource types that tags name rules and lists by."""
taggable(LIST, AclList)


@dataclass(kw_only=True)
class AclListResponse(Response):
    """A network ACL list; those that are everybody's have no VPC."""

    id: str
    name: str
    description: str
    vpcid: str | None = None
    vpcname: str | None = None
    fordisplay: bool | None = None


def acl_list_views(ctx: Context, rows: Sequence[AclList]) -> list[AclListResponse]:
    """Show lists."""
    numbers = [row.id for row in rows]
    ctx.session.scalars(select(AclList).where(AclList.id.in_(numbers)).options(joinedload(AclList.vpc))).all()
    return [
        AclListResponse(
            id=row.uuid,
            name=row.name,
            description=row.description,
            vpcid=row.vpc.uuid if row.vpc else None,
            vpcname=row.vpc.name if row.vpc else None,
            fordisplay=row.display if ctx.caller.is_admin else None,
        )
        for row in rows
    ]


def new_list(vpc: Vpc, name: str, description: str = "") -> AclList:
    """Make an empty list of a VPC: nothing comes in, everything may leave."""
    acl = AclList(name=name, description=description, vpc=vpc)
    acl.account_id, acl.domain_id = vpc.account_id, vpc.domain_id
    return acl


def must_be_changeable(acl: AclList, parameter: str) -> None:
    """Refuse to change a list that is everybody's.

    :raises BadParameter: it is one.
    """
    if acl.vpc_id is None:
        raise BadParameter(
            f"Invalid parameter {parameter} value={acl.uuid}: list {acl.name} is everybody's and never changes; make "
            "one of your own (createNetworkACLList)."
        )


class CreateNetworkAclList(Command, name="createNetworkACLList", answer=one("networkacllist", acl_list_views),
                           roles=EVERYONE, job=True, creates=True, instance="NetworkAcl",
                           event="NETWORK.ACL.CREATE"):  # fmt: skip
    """Make an empty list: nothing comes in, everything may leave, until rules say otherwise."""

    name: str = required(check=names.text)
    vpcid: Vpc | None = optional(description="whose tiers it is for")
    description: str | None = optional(check=names.text)
    fordisplay: bool | None = optional(True, admin=True)

    def run(self, ctx: Context) -> AclList:
        """Make it."""
        if self.vpcid is None:
            raise BadParameter("Invalid parameter vpcid: say which VPC's tiers the list is for.")
        acl = new_list(self.vpcid, self.name, self.description or "")
        acl.display = self.fordisplay is not False
        ctx.session.add(acl)
        ctx.session.flush()
        return acl


class UpdateNetworkAclList(Command, name="updateNetworkACLList", answer=success(), roles=EVERYONE, job=True,
                           instance="NetworkAcl", event="NETWORK.ACL.UPDATE"):  # fmt: skip
    """Change how a list is called and shown."""

    id: AclList = required()
    name: str | None = optional(check=names.text)
    description: str | None = optional(check=names.text)
    customid: str | None = optional(admin=True)
    fordisplay: bool | None = optional(admin=True)

    def run(self, ctx: Context) -> None:
        """Change what is given."""
        acl = ctx.instance = self.id
        must_be_changeable(acl, "id")
        acl.name = self.name or acl.name
        acl.description = acl.description if self.description is None else self.description
        acl.display = acl.display if self.fordisplay is None else self.fordisplay
        set_custom_id(ctx, acl, LIST, self.customid)


class DeleteNetworkAclList(Command, name="deleteNetworkACLList", answer=success(), roles=EVERYONE, job=True,
                           instance="NetworkAcl", event="NETWORK.ACL.DELETE"):  # fmt: skip
    """Delete a list that no tier and no private gateway has."""

    id: AclList = required()

    def run(self, ctx: Context) -> None:
        """Check, and delete it with its rules."""
        acl = ctx.instance = self.id
        must_be_changeable(acl, "id")
        if users := users_of(ctx.session, acl):
            raise InUse(
                f"Invalid parameter id value={acl.uuid}: list {acl.name} cannot be deleted, {', '.join(users)} have "
                "it; replace it there first (replaceNetworkACLList)."
            )
        remove_lists(ctx.session, select(AclList.id).where(AclList.id == acl.id))


def users_of(session: Session, acl: AclList) -> list[str]:
    """Return the names of what has the list."""
    tiers = select(Network.name).where(Network.acl_id == acl.id, Network.removed.is_(None)).order_by(Network.id)
    gateways = select(PrivateGateway.address).where(PrivateGateway.acl_id == acl.id).order_by(PrivateGateway.id)
    return [*session.scalars(tiers), *(f"private gateway {address}" for address in session.scalars(gateways))]


def remove_lists(session: Session, lists: Select[Any]) -> None:
    """Remove lists with their rules and tags; what is removed itself has them no more.

    :param lists: the query for their numbers.
    """
    remove_tags(session, ITEM, select(AclItem.uuid).where(AclItem.list_id.in_(lists)))
    remove_tags(session, LIST, select(AclList.uuid).where(AclList.id.in_(lists)))
    for tier in session.scalars(select(Network).where(Network.acl_id.in_(lists), Network.removed.is_not(None))):
        tier.acl_id = None
    session.flush()
    numbers = list(session.scalars(lists))
    session.execute(delete(AclItem).where(AclItem.list_id.in_(numbers)))
    session.execute(delete(AclList).where(AclList.id.in_(numbers)))


class ReplaceNetworkAclList(Command, name="replaceNetworkACLList", answer=success(), roles=EVERYONE, job=True,
                            instance="NetworkAcl", event="NETWORK.ACL.REPLACE"):  # fmt: skip
    """Put another list on a tier or a private gateway: the router goes from one to the other in one step."""

    aclid: AclList = required()
    networkid: Network | None = optional()
    gatewayid: PrivateGateway | None = optional()

    def run(self, ctx: Context) -> None:
        """Check, and replace it."""
        ctx.instance = self.aclid
        if (self.networkid is None) == (self.gatewayid is None):
            raise BadParameter("Invalid parameter networkid: give it, or gatewayid: one of them gets the list.")
        if self.gatewayid is not None:
            self.gatewayid.acl = choose_acl(ctx.session, self.gatewayid.vpc, self.aclid)
            ctx.touch(self.gatewayid)
            return
        assert self.networkid is not None
        network = self.networkid
        if network.vpc is None:
            raise BadParameter(f"Invalid parameter networkid value={network.uuid}: {network.name} is no tier of a VPC.")
        require_service(network, "NetworkACL")
        network.acl = choose_acl(ctx.session, network.vpc, self.aclid)
        ctx.touch(network)


class ListNetworkAclLists(OwnedListing, name="listNetworkACLLists", answer=many("networkacllist", acl_list_views),
                          roles=EVERYONE):  # fmt: skip
    """List network ACL lists, those that are everybody's too."""

    table = AclList
    keywords = (AclList.name, AclList.description)
    tags = None

    id: AclList | None = matching(AclList.id)
    name: str | None = matching(AclList.name)
    vpcid: Vpc | None = optional(description="those that its tiers may have: its own, and everybody's")
    networkid: Network | None = optional(description="the one that this tier has")
    fordisplay: bool | None = matching(AclList.display, admin=True)

    def owners(self, ctx: Context) -> Any:
        """Return the condition on the owner; some lists are everybody's."""
        condition = super().owners(ctx)
        if condition is None or self.account is not None or self.domainid is not None or self.projectid is not None:
            return condition
        return or_(condition, AclList.vpc_id.is_(None))

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep those of the VPC and of the tier."""
        del ctx
        if self.vpcid is not None:
            query = query.where((AclList.vpc_id == self.vpcid.id) | AclList.vpc_id.is_(None))
        if self.networkid is not None:
            query = query.where(AclList.id == self.networkid.acl_id)
        return query
