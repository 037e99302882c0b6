"""Moving a VPC, with its tiers, to other offerings (migrateVPC): one transaction, in which all fits or nothing changes.

The router stays where it is and learns what is different. Only what it is made of (its own offering), and that it is to
be alone, waits for the next restart with cleanup, which has no gap; a second router comes at once.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.api.caller import ADMINS
from controlplane.api.command import Command, one
from controlplane.api.context import Context
from controlplane.api.parameters import Records, optional, required
from controlplane.errors import BadParameter
from controlplane.network import implement, tiers
from controlplane.network.networks import Network
from controlplane.network.offering_change import change_offering
from controlplane.network.private_gateways import gateways_of
from controlplane.network.remote_access import RemoteAccessVpn
from controlplane.network.vpc_changes import tiers_of
from controlplane.network.vpc_list import vpc_views
from controlplane.network.vpcs import Vpc
from controlplane.network.vpn_gateways import VpnGateway
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.offering.scope import in_zone
from controlplane.offering.vpc_offerings import VpcOffering

_FIELDS = {"networkid", "networkofferingid"}


class MigrateVpc(Command, name="migrateVPC", answer=one("vpc", vpc_views), roles=ADMINS, job=True, instance="Vpc",
                 event="VPC.MIGRATE"):  # fmt: skip
    """Give a VPC another offering, and its tiers theirs, while it runs."""

    vpcid: Vpc = required()
    vpcofferingid: VpcOffering = required()
    tiernetworkofferings: Records | None = optional(
        description="of each tier that is to have another one: tiernetworkofferings[0].networkid, .networkofferingid"
    )
    resume: bool | None = optional(False, description="it is no error that the VPC has the offering already")

    def run(self, ctx: Context) -> Vpc:
        """Check all, change all, and have a second router come where there is to be one."""
        vpc = self.vpcid
        ctx.session.refresh(vpc, with_for_update=True)
        chosen = self._chosen(ctx)
        if self.vpcofferingid.id == vpc.offering_id and not chosen and not self.resume:
            raise BadParameter(
                f"Invalid parameter vpcofferingid value={self.vpcofferingid.uuid}: VPC {vpc.name} has it already."
            )
        self._refuse(ctx.session, vpc)
        old, vpc.offering = vpc.offering, self.vpcofferingid
        made_so = vpc.redundant and not old.redundant
        vpc.restart_required |= old.service_offering_id != vpc.offering.service_offering_id
        vpc.restart_required |= old.redundant and not vpc.offering.redundant
        vpc.redundant = vpc.offering.redundant or made_so
        ctx.session.flush()
        for tier in tiers_of(ctx.session, vpc):
            self._move(ctx, vpc, tier, chosen.get(tier.id))
        if implement.routers_of(ctx.session, vpc):
            implement.ensure_vpc_routers(ctx.session, vpc)
        ctx.touch(vpc)
        return vpc

    def _chosen(self, ctx: Context) -> dict[int, NetworkOffering]:
        """Return the offering of each tier that is named."""
        found: dict[int, NetworkOffering] = {}
        for record in self.tiernetworkofferings or ():
            if {name.lower() for name in record} != _FIELDS:
                raise BadParameter(
                    f"Invalid parameter tiernetworkofferings: an entry has {', '.join(sorted(record)) or 'nothing'}; "
                    "each has networkid and networkofferingid."
                )
            given = {name.lower(): value for name, value in record.items()}
            tier = ctx.find(Network, given["networkid"], "tiernetworkofferings")
            offering = ctx.find(NetworkOffering, given["networkofferingid"], "tiernetworkofferings")
            assert isinstance(tier, Network)
            assert isinstance(offering, NetworkOffering)
            if tier.vpc_id != self.vpcid.id:
                raise BadParameter(
                    f"Invalid parameter tiernetworkofferings value={tier.uuid}: {tier.name} is no tier of "
                    f"{self.vpcid.name}."
                )
            found[tier.id] = offering
        return found

    def _refuse(self, session: Session, vpc: Vpc) -> None:
        """Refuse an offering that the VPC as a whole cannot have; every reason is named.

        :raises BadParameter: it is not for this zone, is of another kind, or lacks a service that the VPC uses.
        """
        old, new = vpc.offering, self.vpcofferingid
        reasons = [] if new.state == "Enabled" else [f"it is {new.state}, and an enabled one is needed"]
        if (
            session.scalar(select(VpcOffering.id).where(VpcOffering.id == new.id, in_zone(VpcOffering, vpc.zone)))
            is None
        ):
            reasons.append(f"it is not for zone {vpc.zone.name}")
        if (new.network_mode, new.routing_mode) != (old.network_mode, old.routing_mode):
            modes = [f"{one.network_mode} {one.routing_mode or ''}".strip() for one in (new, old)]
            reasons.append(f"it is {modes[0]}, and the VPC is {modes[1]}")
        if new.internet_protocol != old.internet_protocol:
            reasons.append(f"it is {new.internet_protocol}, and the VPC is {old.internet_protocol}")
        vpns = (VpnGateway, RemoteAccessVpn)
        if "Vpn" not in new.services and any(
            session.scalar(select(one.id).where(one.vpc_id == vpc.id)) for one in vpns
        ):
            reasons.append("it has no Vpn, and the VPC has a VPN gateway or a remote access VPN")
        if "Gateway" in old.services and "Gateway" not in new.services and gateways_of(session, vpc):
            reasons.append("it has no Gateway, and the VPC has private gateways")
        if reasons:
            raise BadParameter(
                f"Invalid parameter vpcofferingid value={new.uuid}: VPC {vpc.name} cannot have the offering "
                f"{new.name}: {'; '.join(reasons)}."
            )

    def _move(self, ctx: Context, vpc: Vpc, tier: Network, offering: NetworkOffering | None) -> None:
        """Give a tier its offering, or see that the one that it has goes with the VPC's new one."""
        if offering is not None:
            ctx.touched.extend(change_offering(ctx.session, tier, offering, forced=False))
        elif reasons := tiers.objections(vpc, tier.offering):
            raise BadParameter(
                f"Invalid parameter tiernetworkofferings: tier {tier.name} cannot keep its offering "
                f"{tier.offering.name}: {'; '.join(reasons)}. Give it another one."
            )
