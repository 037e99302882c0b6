"""What all rules have in common: how they are removed, whose names their answers need, and which guest they lead to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, delete, select, update
from sqlalchemy.orm import Session

from controlplane.api.context import Context
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.base import Row
from controlplane.errors import BadParameter, Forbidden
from controlplane.identity.tags import ResourceTag, move_tags
from controlplane.network.claims import PortClaim
from controlplane.network.networks import Network
from controlplane.network.nics import Nic, SecondaryAddress

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_NIC = select(Nic).where(Nic.vm_id == bindparam("vm"), Nic.network_id == bindparam("network"))
GONE = ("Destroyed", "Expunging", "Error")


def remove_rows(session: Session, table: type[Row], taggable: str, *conditions: ColumnElement[bool]) -> None:
    """Delete the rows of a table that meet the conditions, and their tags."""
    remove_tags(session, taggable, select(table.uuid).where(*conditions))
    session.execute(delete(table).where(*conditions))


def remove_tags(session: Session, taggable: str, uuids: Select[Any]) -> None:
    """Delete the tags of the rows whose UUIDs the query gives."""
    theirs = ResourceTag.resource_type == taggable, ResourceTag.resource_uuid.in_(uuids)
    session.execute(delete(ResourceTag).where(*theirs))


def rows_by_id(session: Session, columns: Sequence[Any], numbers: Iterable[int | None]) -> dict[int, Any]:
    """Return columns of a table's rows by row number, in one query.

    :param columns: the first is the table's number.
    """
    wanted = {number for number in numbers if number is not None}
    if not wanted:
        return {}
    return {row[0]: row for row in session.execute(select(*columns).where(columns[0].in_(wanted)))}


def set_custom_id(ctx: Context, row: Row, taggable: str, wanted: str | None) -> None:
    """Give the row another UUID (``customid``); its tags follow.

    :raises BadParameter: it is no UUID, or another object has it.
    """
    if wanted is None:
        return
    uuid = wanted.strip().lower()
    if not _UUID.fullmatch(uuid):
        raise BadParameter(f"Invalid parameter customid value={wanted}: it must be a UUID.")
    table = type(row)
    if ctx.session.scalar(select(table.id).where(table.uuid == uuid, table.id != row.id)) is not None:
        raise BadParameter(f"Invalid parameter customid value={wanted}: another object has this id.")
    _follow(ctx.session, row.uuid, uuid)
    move_tags(ctx.session, taggable, row.uuid, uuid)
    row.uuid = uuid


def _follow(session: Session, old: str, new: str) -> None:
    """Have the ports and firewall rules that belong to a rule know it by its new UUID."""
    from controlplane.network.firewall import FirewallRule

    session.execute(update(PortClaim).where(PortClaim.rule_uuid == old).values(rule_uuid=new))
    session.execute(update(FirewallRule).where(FirewallRule.related_uuid == old).values(related_uuid=new))


def guest_nic(session: Session, vm: VirtualMachine, network: Network, account_id: int) -> Nic:
    """Return the guest's interface on the network.

    :param account_id: who has the rule: the guest must be the same account's.
    :raises Forbidden: it is another account's.
    :raises BadParameter: the guest is gone, or has no interface there.
    """
    if vm.account_id != account_id:
        raise Forbidden(f"Virtual machine {vm.name} belongs to another account than the public address.")
    if vm.state in GONE:
        raise BadParameter(f"Invalid parameter virtualmachineid value={vm.uuid}: {vm.name} is {vm.state}.")
    nic = session.scalar(_NIC, {"vm": vm.id, "network": network.id})
    if nic is None:
        raise BadParameter(
            f"Invalid parameter virtualmachineid value={vm.uuid}: {vm.name} has no interface on network {network.name}."
        )
    if not nic.address:
        raise BadParameter(
            f"Invalid parameter virtualmachineid value={vm.uuid}: {vm.name} has no address on network {network.name}."
        )
    return nic


def guest_address(session: Session, nic: Nic, wanted: str | None, parameter: str = "vmguestip") -> str:
    """Return the address of the interface that a rule leads to: the wanted one, or its first.

    :raises BadParameter: the interface does not have the wanted one.
    """
    if not wanted or wanted == nic.address:
        return nic.address
    further = session.scalars(select(SecondaryAddress.address).where(SecondaryAddress.nic_id == nic.id)).all()
    if wanted not in further:
        raise BadParameter(
            f"Invalid parameter {parameter} value={wanted}: the machine has {', '.join([nic.address, *further])} there."
        )
    return wanted
