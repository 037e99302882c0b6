"""Port forwarding rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, ForeignKey, Index, String, Table, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.base import Created, Owned, Row, Stamped, new_uuid
from controlplane.errors import BadParameter
from controlplane.identity.ownership import OwnedListing
from controlplane.identity.tags import TagResponse, tags_of
from controlplane.network import rule_text
from controlplane.network.claims import PORT_FORWARDING, PortClaim, claim
from controlplane.network.firewall import FirewallRule, close_related, open_related
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.public_ips import PublicIp, clears_address, clears_nic
from controlplane.network.purposes import must_take, network_of, tier_of_machine
from controlplane.network.rule_facts import Lists, addresses_of, stored
from controlplane.network.rule_pages import Pages
from controlplane.network.rules import guest_address, guest_nic, remove_rows, rows_by_id, set_custom_id
from controlplane.reconcile.targets import Target
from drivers import vocabulary

TAGGABLE = "PortForwardingRule"
PROTOCOLS = ("tcp", "udp")


class PortForward(Created, Stamped, Owned, Row):
    """A port forwarding rule (createPortForwardingRule). ``guest`` is the address on ``nic`` that it leads to."""

    __tablename__ = "port_forwards"
    __table_args__ = (Index("ix_port_forwards_pages", "network_id", "id", "stamp"),)

    network_id: Mapped[int] = mapped_column(ForeignKey("networks.id"))
    public_ip_id: Mapped[int] = mapped_column(ForeignKey("public_ips.id"), index=True)
    protocol: Mapped[str] = mapped_column(String(10))
    public_start: Mapped[int]
    public_end: Mapped[int]
    private_start: Mapped[int]
    private_end: Mapped[int]
    vm_id: Mapped[int] = mapped_column(ForeignKey("virtual_machines.id"), index=True)
    nic_id: Mapped[int] = mapped_column(ForeignKey("nics.id"), index=True)
    guest: Mapped[str] = mapped_column(String(40))
    sources: Mapped[list[str]] = mapped_column(default=list)
    display: Mapped[bool] = mapped_column(default=True)
    state: Mapped[str] = mapped_column(String(20), default="Active")
    network: Mapped[Network] = relationship()
    public_ip: Mapped[PublicIp] = relationship()
    nic: Mapped[Nic] = relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its network."""
        return session.get_one(Network, self.network_id).targets(session)


dispatch.JOB_TABLES["PortForwardingRule"] = PortForward


@dataclass(kw_only=True)
class ForwardResponse(Response):
    """A port forwarding or IP forwarding rule. Ports are texts, as CloudStack's clients expect them."""

    id: str
    protocol: str
    publicport: str
    publicendport: str
    privateport: str
    privateendport: str
    virtualmachineid: str | None = None
    virtualmachinename: str | None = None
    virtualmachinedisplayname: str | None = None
    vmguestip: str | None = None
    ipaddress: str
    ipaddressid: str
    networkid: str
    cidrlist: str
    state: str
    fordisplay: bool | None = None
    tags: list[TagResponse]


def forward_views(ctx: Context, rows: Sequence[PortForward]) -> list[ForwardResponse]:
    """Show port forwarding rules."""
    names = names_of(ctx.session, rows)
    tags, admin = tags_of(ctx, TAGGABLE, rows), ctx.caller.is_admin
    return [
        ForwardResponse(
            id=row.uuid,
            protocol=row.protocol,
            publicport=str(row.public_start),
            publicendport=str(row.public_end),
            privateport=str(row.private_start),
            privateendport=str(row.private_end),
            vmguestip=row.guest,
            cidrlist=",".join(row.sources),
            state=row.state,
            fordisplay=row.display if admin else None,
            tags=tags[row.id],
            **names[row.id],
        )
        for row in rows
    ]


def names_of(session: Session, rows: Sequence[PortForward]) -> dict[int, dict[str, Any]]:
    """Return, by row number, the response fields that name a rule's address, network and guest."""
    networks = rows_by_id(session, (Network.id, Network.uuid), (row.network_id for row in rows))
    columns = PublicIp.id, PublicIp.uuid, PublicIp.address
    addresses = rows_by_id(session, columns, (row.public_ip_id for row in rows))
    guests = guest_names(session, (row.vm_id for row in rows))
    return {
        row.id: {
            "networkid": networks[row.network_id].uuid,
            "ipaddress": addresses[row.public_ip_id].address,
            "ipaddressid": addresses[row.public_ip_id].uuid,
            **guests[row.vm_id],
        }
        for row in rows
    }


def guest_names(session: Session, numbers: Iterable[int | None]) -> dict[int, dict[str, Any]]:
    """Return, by machine number, the response fields that name a machine."""
    vm = VirtualMachine
    found = rows_by_id(session, (vm.id, vm.uuid, vm.name, vm.display_name), numbers)
    return {
        number: {
            "virtualmachineid": uuid,
            "virtualmachinename": name,
            "virtualmachinedisplayname": display_name or name,
        }
        for number, uuid, name, display_name in found.values()
    }


class CreatePortForwardingRule(Command, name="createPortForwardingRule", job=True,
                               answer=one("portforwardingrule", forward_views), creates=True,
                               instance="PortForwardingRule", roles=EVERYONE,
                               event="NET.RULEADD"):  # fmt: skip
    """Forward ports of a public address to a machine; a range keeps its offsets."""

    ipaddressid: PublicIp = required()
    privateport: int = required(description="first port of the machine")
    protocol: str = required(description="tcp or udp")
    publicport: int = required(description="first port of the address")
    virtualmachineid: VirtualMachine = required()
    cidrlist: list[str] | None = optional(description="sources that are forwarded; all unless given")
    fordisplay: bool | None = optional(True, admin=True)
    networkid: Network | None = optional(description="the network that the machine is reached on")
    openfirewall: bool | None = optional(True, description="open the firewall for these ports")
    privateendport: int | None = optional()
    publicendport: int | None = optional()
    vmguestip: str | None = optional(description="one of the machine's addresses on the network; its first by default")

    def run(self, ctx: Context) -> PortForward:
        """Check, and make the rule."""
        session, ip = ctx.session, self.ipaddressid
        network = network_of(session, ip, self.networkid or tier_of_machine(session, ip, self.virtualmachineid))
        must_take(session, ip, network, PORT_FORWARDING)
        rule = self._rule(ip, network)
        nic = guest_nic(session, self.virtualmachineid, network, rule.account_id)
        rule.vm_id, rule.nic_id = self.virtualmachineid.id, nic.id
        rule.guest = guest_address(session, nic, self.vmguestip)
        wanted = PortClaim(
            public_ip_id=ip.id,
            protocol=rule.protocol,
            port=rule.public_start,
            rule_uuid=rule.uuid,
            purpose=PORT_FORWARDING,
        )
        claim(session, wanted, rule.public_end)
        if self.openfirewall:
            opened = FirewallRule(protocol=rule.protocol, start=rule.public_start, end=rule.public_end)
            opened.sources, opened.related_uuid = [rule_text.EVERYONE], rule.uuid
            open_related(session, network, ip, opened)
        session.add(rule)
        ctx.touch(network)
        return rule

    def _rule(self, ip: PublicIp, network: Network) -> PortForward:
        protocol = rule_text.protocol(self.protocol, PROTOCOLS)
        public = rule_text.port_range("publicport", self.publicport, "publicendport", self.publicendport)
        private = rule_text.port_range("privateport", self.privateport, "privateendport", self.privateendport)
        if public[1] - public[0] != private[1] - private[0]:
            raise BadParameter(
                f"Invalid parameter privateendport value={private[1]}: public {rule_text.ports_text(*public)} and "
                f"private {rule_text.ports_text(*private)} must be as many."
            )
        return PortForward(
            uuid=new_uuid(),
            account_id=ip.account_id,
            domain_id=ip.domain_id,
            network_id=network.id,
            public_ip_id=ip.id,
            protocol=protocol,
            public_start=public[0],
            public_end=public[1],
            private_start=private[0],
            private_end=private[1],
            sources=rule_text.cidr_list("cidrlist", self.cidrlist or []),
            display=self.fordisplay is not False,
        )


class UpdatePortForwardingRule(Command, name="updatePortForwardingRule", job=True,
                               answer=one("portforwardingrule", forward_views), instance="PortForwardingRule",
                               roles=EVERYONE, event="NET.RULEMODIFY"):  # fmt: skip
    """Change a port forwarding rule in place: where it leads to, and for whom."""

    id: PortForward = required()
    cidrlist: list[str] | None = optional()
    customid: str | None = optional(admin=True)
    fordisplay: bool | None = optional(admin=True)
    privateendport: int | None = optional(description="as many ports as public ones; given by privateport otherwise")
    privateport: int | None = optional()
    virtualmachineid: VirtualMachine | None = optional()
    vmguestip: str | None = optional()

    def run(self, ctx: Context) -> PortForward:
        """Check, and change the rule."""
        rule = self.id
        self._change_ports(rule)
        if self.virtualmachineid is not None or self.vmguestip:
            vm = self.virtualmachineid or ctx.session.get_one(VirtualMachine, rule.vm_id)
            nic = guest_nic(ctx.session, vm, rule.network, rule.account_id)
            rule.vm_id, rule.nic_id, rule.guest = vm.id, nic.id, guest_address(ctx.session, nic, self.vmguestip)
        if self.cidrlist is not None:
            rule.sources = rule_text.cidr_list("cidrlist", self.cidrlist)
        if self.fordisplay is not None:
            rule.display = self.fordisplay
        set_custom_id(ctx, rule, TAGGABLE, self.customid)
        ctx.touch(rule)
        return rule

    def _change_ports(self, rule: PortForward) -> None:
        if self.privateport is None and self.privateendport is None:
            return
        length = rule.public_end - rule.public_start
        first = self.privateport
        if first is None:
            first = (self.privateendport or 0) - length
        last = first + length if self.privateendport is None else self.privateendport
        first, last = rule_text.port_range("privateport", first, "privateendport", last)
        if last - first != length:
            raise BadParameter(
                f"Invalid parameter privateendport value={last}: private {rule_text.ports_text(first, last)} must "
                f"be as many as public {rule_text.ports_text(rule.public_start, rule.public_end)}."
            )
        rule.private_start, rule.private_end = first, last


class DeletePortForwardingRule(Command, name="deletePortForwardingRule", answer=success(), job=True,
                               instance="PortForwardingRule", roles=EVERYONE, event="NET.RULEDELETE"):  # fmt: skip
    """Delete a port forwarding rule, and the firewall rule that it opened."""

    id: PortForward = required()

    def run(self, ctx: Context) -> None:
        """Delete it."""
        ctx.instance = self.id
        ctx.touch(self.id)
        close_related(ctx.session, self.id.uuid)
        _remove(ctx.session, PortForward.id == self.id.id)


def _remove(session: Session, condition: ColumnElement[bool]) -> None:
    claims = PortClaim.rule_uuid.in_(select(PortForward.uuid).where(condition))
    session.execute(delete(PortClaim).where(claims))
    remove_rows(session, PortForward, TAGGABLE, condition)


class ListPortForwardingRules(OwnedListing, name="listPortForwardingRules",
                              answer=many("portforwardingrule", forward_views), roles=EVERYONE):  # fmt: skip
    """List port forwarding rules."""

    table = PortForward
    keywords = (PortForward.protocol, PortForward.guest)
    taggable = TAGGABLE

    id: PortForward | None = matching(PortForward.id)
    ipaddressid: PublicIp | None = matching(PortForward.public_ip_id)
    networkid: Network | None = matching(PortForward.network_id)
    fordisplay: bool | None = matching(PortForward.display, admin=True)


@clears_address
def clear_address(session: Session, ip: PublicIp) -> None:
    """Remove the port forwarding rules of an address that is given back; their claims go with it."""
    remove_rows(session, PortForward, TAGGABLE, PortForward.public_ip_id == ip.id)


@clears_nic
def clear_nic(session: Session, nic: Nic) -> list[Network]:
    """Remove the port forwarding rules that lead to a NIC, and the firewall rules that they opened."""
    networks = session.scalars(select(PortForward.network_id).where(PortForward.nic_id == nic.id).distinct()).all()
    remove_forwards(session, PortForward.nic_id == nic.id)
    return [session.get_one(Network, number) for number in networks]


def remove_forwards(session: Session, condition: ColumnElement[bool]) -> None:
    """Remove port forwarding rules, and the firewall rules that they opened."""
    for uuid in session.scalars(select(PortForward.uuid).where(condition)).all():
        close_related(session, uuid)
    _remove(session, condition)


def forward_facts(session: Session, network_id: int) -> tuple[vocabulary.PortForward, ...]:
    """Return the network's port forwarding rules."""
    addresses, known = addresses_of(session, network_id), Lists(limiting=True)

    def fact(uuid: str, ip: int, protocol: str, sources: str, *leads: Any) -> vocabulary.PortForward | None:
        if ip not in addresses:
            return None
        first, last, guest, start, end = leads
        return vocabulary.PortForward(uuid, addresses[ip], protocol, first, last, guest, start, end, known[sources])

    return _PAGES.read(session, network_id, addresses, fact)


_rules = cast("Table", PortForward.__table__)
_PAGES = Pages[vocabulary.PortForward](
    _rules,
    (_rules.c.uuid, _rules.c.public_ip_id, _rules.c.protocol, stored(_rules.c.sources), _rules.c.public_start,
     _rules.c.public_end, _rules.c.guest, _rules.c.private_start, _rules.c.private_end),
)  # fmt: skip
