"""Static NAT: a public address that is one guest's, both ways; and the ports opened on such an address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ForeignKey, Select, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.base import Created, Owned, Row, new_uuid
from controlplane.errors import BadParameter, RuleConflict
from controlplane.identity.ownership import OwnedListing
from controlplane.network import portable_ips, rule_text
from controlplane.network.claims import IP_FORWARDING, PortClaim, claim, give_up
from controlplane.network.elastic_ips import give_again, is_elastic, lead
from controlplane.network.firewall import FirewallRule, carry, close_related, open_related
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.port_forwarding import PROTOCOLS, ForwardResponse, guest_names
from controlplane.network.public_ips import (
    ALLOCATED,
    PublicIp,
    clears_address,
    clears_nic,
    forget_static_nat,
    release,
)
from controlplane.network.public_nics import plug
from controlplane.network.purposes import STATIC_NAT, must_take, network_of, tier_of_machine
from controlplane.network.rules import guest_address, guest_nic, rows_by_id
from controlplane.reconcile.targets import Target
from drivers import vocabulary


class IpForward(Created, Owned, Row):
    """Ports opened on an address with static NAT (createIpForwardingRule).

    Static NAT itself leads every port to the guest; what this rule does is to open the firewall for some of them.
    """

    __tablename__ = "ip_forwards"

    network_id: Mapped[int] = mapped_column(ForeignKey("networks.id"), index=True)
    public_ip_id: Mapped[int] = mapped_column(ForeignKey("public_ips.id"), index=True)
    protocol: Mapped[str] = mapped_column(String(10))
    start: Mapped[int]
    end: Mapped[int]
    sources: Mapped[list[str]] = mapped_column(default=list)
    state: Mapped[str] = mapped_column(String(20), default="Active")

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its network."""
        return session.get_one(Network, self.network_id).targets(session)


dispatch.JOB_TABLES["IpForwardingRule"] = IpForward


class EnableStaticNat(Command, name="enableStaticNat", answer=success(), roles=EVERYONE,
                      event="STATICNAT.ENABLE"):  # fmt: skip
    """Make a public address a guest's own; with elastic addresses it takes the place of the one that the guest has."""

    ipaddressid: PublicIp = required()
    virtualmachineid: VirtualMachine = required()
    networkid: Network | None = optional(uses=True)
    vmguestip: str | None = optional()

    def run(self, ctx: Context) -> None:
        """Check, and have the address stand for the guest; again for the same guest is fine."""
        ip, vm, session = self.ipaddressid, self.virtualmachineid, ctx.session
        elsewhere = portable_ips.destination(session, ip, vm, self.networkid)
        network = elsewhere or network_of(session, ip, self.networkid or tier_of_machine(session, ip, vm))
        must_take(session, ip, network, STATIC_NAT)
        assert ip.account_id is not None
        nic = guest_nic(session, vm, network, ip.account_id)
        address = guest_address(session, nic, self.vmguestip)
        if elsewhere is not None:
            self._refuse_second(ctx, network, nic, address)
            ctx.touch(ip)
            if ip.vm_id is not None:
                _tell(ctx, session.get_one(VirtualMachine, ip.vm_id))
            portable_ips.move(session, ip, network)
            _carry_rules(session, ip, network)
            ctx.touched += plug(session, network.whole)
            ctx.note = f"portable address {ip.address} moves to network {network.name}"
        if ip.static_nat and (ip.nic_id, ip.nic_address) == (nic.id, address):
            return
        if ip.static_nat:
            raise RuleConflict(
                f"Invalid parameter ipaddressid value={ip.uuid}: public address {ip.address} has static NAT to "
                f"{ip.nic_address} already: disable it first."
            )
        self._refuse_second(ctx, network, nic, address)
        lead(ip, vm, nic, address)
        ctx.instance = ip
        ctx.touch(ip)
        _tell(ctx, vm)

    def _refuse_second(self, ctx: Context, network: Network, nic: Nic, address: str) -> None:
        """Refuse a second address for the same one of a guest; with elastic addresses the first one goes instead."""
        vm, session = self.virtualmachineid, ctx.session
        other = PublicIp.nic_id == nic.id, PublicIp.nic_address == address, PublicIp.id != self.ipaddressid.id
        taken = session.scalar(select(PublicIp).where(*other).limit(1))
        if taken is None:
            return
        if not is_elastic(network):
            raise RuleConflict(
                f"Invalid parameter virtualmachineid value={vm.uuid}: virtual machine {vm.name} has static NAT at "
                f"{address} already, by {taken.address}; vmguestip can name another of its addresses."
            )
        ctx.touch(taken)
        _make_room(session, taken)


def _make_room(session: Session, ip: PublicIp) -> None:
    if ip.is_system:
        release(session, ip)
    else:
        end_static_nat(session, ip)


class DisableStaticNat(Command, name="disableStaticNat", answer=success(), job=True, instance="IpAddress",
                       roles=EVERYONE, event="STATICNAT.DISABLE"):  # fmt: skip
    """End static NAT on an address; its rules go with it. A guest with elastic addresses gets another at once."""

    ipaddressid: PublicIp = required()

    def run(self, ctx: Context) -> None:
        """Check, and end it."""
        ip = self.ipaddressid
        if not ip.static_nat:
            raise BadParameter(
                f"Invalid parameter ipaddressid value={ip.uuid}: {ip.address} has no static NAT that could be disabled."
            )
        refuse_system(ip)
        ctx.instance, vm = ip, ctx.session.get(VirtualMachine, ip.vm_id)
        ctx.touch(ip)
        end_with_successor(ctx, ip)
        ip.part = ""  # it stands for nobody: no router of a pod answers for it
        if vm is not None:
            _tell(ctx, vm)


def refuse_system(ip: PublicIp) -> None:
    """Refuse to take the public address from a guest that it got by itself.

    :raises BadParameter: it is one.
    """
    if ip.is_system and ip.static_nat:
        raise BadParameter(
            f"Invalid parameter ipaddressid value={ip.uuid}: {ip.address} is what its guest got by itself, and goes "
            "when that stops; enable static NAT on another address to have that instead."
        )


def end_with_successor(ctx: Context, ip: PublicIp) -> None:
    """End static NAT, if there is any; a guest with elastic addresses gets another one by itself."""
    network, nic = (ctx.session.get(Network, ip.network_id) if ip.static_nat else None), ip.nic_id
    end_static_nat(ctx.session, ip)
    if network is not None:
        ctx.session.flush()
        ctx.touched += give_again(ctx.session, network, nic)


def _tell(ctx: Context, vm: VirtualMachine) -> None:
    """Have the machine's drive, if it has one, say the public address that it has now."""
    from controlplane.compute.config_drives import drives_of

    ctx.touch(*drives_of(ctx.session, vm))


def end_static_nat(session: Session, ip: PublicIp) -> None:
    """End static NAT, with the rules that only make sense with it and what they opened."""
    _remove(session, session.scalars(select(IpForward).where(IpForward.public_ip_id == ip.id)).all())
    forget_static_nat(ip)


def _carry_rules(session: Session, ip: PublicIp, network: Network) -> None:
    """Take what is open on an address along to its new network; a VPC's tier has ACLs instead."""
    rules = session.scalars(select(IpForward).where(IpForward.public_ip_id == ip.id)).all()
    if carry(session, ip, network):
        for rule in rules:
            rule.network_id = network.id
    else:
        _remove(session, rules)


def _remove(session: Session, rules: Sequence[IpForward]) -> None:
    for rule in rules:
        close_related(session, rule.uuid)
        give_up(session, rule.uuid)
        session.delete(rule)


def ip_forward_views(ctx: Context, rows: Sequence[IpForward]) -> list[ForwardResponse]:
    """Show IP forwarding rules: the ports are the same on both sides."""
    session = ctx.session
    networks = rows_by_id(session, (Network.id, Network.uuid), (row.network_id for row in rows))
    columns = PublicIp.id, PublicIp.uuid, PublicIp.address, PublicIp.vm_id, PublicIp.nic_address
    addresses = rows_by_id(session, columns, (row.public_ip_id for row in rows))
    guests = guest_names(session, (address.vm_id for address in addresses.values()))
    return [
        ForwardResponse(
            id=row.uuid,
            protocol=row.protocol,
            publicport=str(row.start),
            publicendport=str(row.end),
            privateport=str(row.start),
            privateendport=str(row.end),
            vmguestip=addresses[row.public_ip_id].nic_address,
            ipaddress=addresses[row.public_ip_id].address,
            ipaddressid=addresses[row.public_ip_id].uuid,
            networkid=networks[row.network_id].uuid,
            cidrlist=",".join(row.sources),
            state=row.state,
            tags=[],
            **guests.get(addresses[row.public_ip_id].vm_id or 0, {}),
        )
        for row in rows
    ]


class CreateIpForwardingRule(Command, name="createIpForwardingRule", answer=one("ipforwardingrule", ip_forward_views),
                             job=True, creates=True, instance="IpForwardingRule", roles=EVERYONE,
                             event="NET.RULEADD"):  # fmt: skip
    """Open ports on an address with static NAT."""

    ipaddressid: PublicIp = required()
    protocol: str = required(description="tcp or udp")
    startport: int = required()
    endport: int | None = optional()
    cidrlist: list[str] | None = optional(description="sources that may come in; everyone unless given")
    openfirewall: bool | None = optional(True)

    def run(self, ctx: Context) -> IpForward:
        """Check, and make the rule."""
        session, ip = ctx.session, self.ipaddressid
        network = network_of(session, ip, None)
        if not ip.static_nat:
            raise BadParameter(
                f"Invalid parameter ipaddressid value={ip.uuid}: {ip.address} has no static NAT; enable it first."
            )
        rule = IpForward(uuid=new_uuid(), account_id=ip.account_id, domain_id=ip.domain_id, network_id=network.id)
        rule.public_ip_id, rule.protocol = ip.id, rule_text.protocol(self.protocol, PROTOCOLS)
        rule.start, rule.end = rule_text.port_range("startport", self.startport, "endport", self.endport)
        rule.sources = rule_text.cidr_list("cidrlist", self.cidrlist or [])
        wanted = PortClaim(public_ip_id=ip.id, protocol=rule.protocol, port=rule.start, purpose=IP_FORWARDING)
        wanted.rule_uuid = rule.uuid
        claim(session, wanted, rule.end)
        session.add(rule)
        if self.openfirewall:
            opened = FirewallRule(protocol=rule.protocol, start=rule.start, end=rule.end, related_uuid=rule.uuid)
            opened.sources = rule.sources or [rule_text.EVERYONE]
            open_related(session, network, ip, opened)
        ctx.touch(network)
        return rule


class DeleteIpForwardingRule(Command, name="deleteIpForwardingRule", answer=success(), job=True,
                             instance="IpForwardingRule", roles=EVERYONE, event="NET.RULEDELETE"):  # fmt: skip
    """Delete an IP forwarding rule, and the firewall rule that it opened."""

    id: IpForward = required()

    def run(self, ctx: Context) -> None:
        """Delete it."""
        ctx.instance = self.id
        ctx.touch(self.id)
        _remove(ctx.session, [self.id])


class ListIpForwardingRules(OwnedListing, name="listIpForwardingRules",
                            answer=many("ipforwardingrule", ip_forward_views), roles=EVERYONE):  # fmt: skip
    """List IP forwarding rules."""

    table = IpForward
    keywords = (IpForward.protocol,)
    tags = None

    id: IpForward | None = matching(IpForward.id)
    ipaddressid: PublicIp | None = matching(IpForward.public_ip_id)
    virtualmachineid: VirtualMachine | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep the rules of the machine's addresses."""
        del ctx
        if self.virtualmachineid is None:
            return query
        theirs = select(PublicIp.id).where(PublicIp.vm_id == self.virtualmachineid.id)
        return query.where(IpForward.public_ip_id.in_(theirs))


@clears_address
def clear_address(session: Session, ip: PublicIp) -> None:
    """End static NAT on an address that is given back."""
    end_static_nat(session, ip)


@clears_nic
def clear_nic(session: Session, nic: Nic) -> list[Network]:
    """End static NAT that leads to a NIC; the addresses stay with their network, but for what it got by itself."""
    addresses = session.scalars(select(PublicIp).where(PublicIp.nic_id == nic.id)).all()
    networks = [session.get_one(Network, ip.network_id) for ip in addresses if ip.network_id]
    for ip in addresses:
        _make_room(session, ip)
    return networks


def static_nat_facts(session: Session, network_id: int, part: str = "") -> tuple[vocabulary.StaticNat, ...]:
    """Return which of the network's public addresses are guests'.

    :param part: the appliance's, of a network that has several (``Router.part``).
    """
    columns = PublicIp.uuid, PublicIp.address, PublicIp.nic_address
    mine = PublicIp.network_id == network_id, PublicIp.static_nat, PublicIp.state == ALLOCATED
    query = select(*columns).where(*mine).order_by(PublicIp.number)
    if part:
        query = query.where(PublicIp.part == part)
    return tuple(vocabulary.StaticNat(uuid, address, guest or "") for uuid, address, guest in session.execute(query))
