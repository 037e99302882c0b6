"""Permitting other accounts to put guests on a network, and ending that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, success
from controlplane.api.context import Context, visible
from controlplane.api.parameters import Uuid, optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter
from controlplane.identity.accounts import PROJECT, Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import require_owned
from controlplane.network.network_permissions import ACCOUNT, NetworkPermission
from controlplane.network.networks import Network


@dataclass(kw_only=True)
class NetworkPermissionResponse(Response):
    """An account that may use a network which is not its own."""

    networkid: str
    accountid: str
    account: str
    domainid: str
    domain: str


def permission_views(ctx: Context, rows: Sequence[NetworkPermission]) -> list[NetworkPermissionResponse]:
    """Return the responses of these permissions."""
    query = select(Account.id, Account.uuid, Account.name, Domain.uuid, Domain.name).join(Domain)
    accounts = query.where(Account.id.in_([row.account_id for row in rows]))
    found = {number: fields for number, *fields in ctx.session.execute(accounts)}
    numbers = {row.network_id for row in rows}
    networks = dict(ctx.session.execute(select(Network.id, Network.uuid).where(Network.id.in_(numbers))).all())
    return [
        NetworkPermissionResponse(
            networkid=networks[row.network_id],
            accountid=found[row.account_id][0],
            account=found[row.account_id][1],
            domainid=found[row.account_id][2],
            domain=found[row.account_id][3],
        )
        for row in rows
    ]


def _permissible(network: Network) -> Network:
    """Return the network, which must be one that its owner may have others use.

    :raises BadParameter: all of a domain use it, or it is a tier of a VPC.
    """
    wrong = f"Invalid parameter networkid value={network.uuid}: network {network.name}"
    if network.acl_type != ACCOUNT:
        raise BadParameter(f"{wrong} is for all accounts of its domain: nobody needs to be permitted.")
    if network.vpc_id is not None:
        raise BadParameter(f"{wrong} is a tier of a VPC, and so its account's alone.")
    return network


def _named(ctx: Context, command: NamingAccounts) -> list[Account]:
    """Return the accounts that are named: by name in the network's domain, by id there or where the caller sees them.

    :raises BadParameter: none is named, or there is no such account.
    """
    network, names, uuids = command.networkid, command.accounts or [], command.accountids or []
    if not names and not uuids:
        raise BadParameter("Invalid parameter accounts: name accounts, or give their accountids.")
    there = Account.removed.is_(None), Account.type != PROJECT
    near = (Account.domain_id == network.domain_id) | visible(Account, ctx.caller)
    found = []
    for parameter, values in (("accounts", names), ("accountids", uuids)):
        for value in values:
            by_name = (func.lower(Account.name) == value.lower()) & (Account.domain_id == network.domain_id)
            wanted = by_name if parameter == "accounts" else (Account.uuid == value.lower()) & near
            account = ctx.session.scalar(select(Account).where(wanted, *there))
            if account is None:
                raise BadParameter(f"Invalid parameter {parameter} value={value}: there is no such account.")
            found.append(account)
    return list({account.id: account for account in found}.values())


class NamingAccounts(Command):
    """What names a network and accounts that are to have, or to lose, a permission for it."""

    roles = EVERYONE
    event = "NETWORK.PERMISSION.UPDATE"
    instance = "Network"
    unsupported = ("projectids",)

    networkid: Network = required()
    accountids: list[Uuid] | None = optional()
    accounts: list[str] | None = optional(description="names, in the network's domain")


class CreateNetworkPermissions(NamingAccounts, name="createNetworkPermissions", answer=success()):
    """Permit accounts to put guests on a network of one's own."""

    def run(self, ctx: Context) -> None:
        """Add what is not there yet; its owner needs no permission."""
        network = ctx.instance = _permissible(self.networkid)
        assert isinstance(network, Network)
        mine = select(NetworkPermission.account_id).where(NetworkPermission.network_id == network.id)
        have = {network.account_id, *ctx.session.scalars(mine)}
        for account in _named(ctx, self):
            if account.id not in have:
                ctx.session.add(NetworkPermission(network_id=network.id, account_id=account.id))


class RemoveNetworkPermissions(NamingAccounts, name="removeNetworkPermissions", answer=success()):
    """Have accounts put no more guests on a network; the guests that are there stay."""

    def run(self, ctx: Context) -> None:
        """Remove the rows."""
        network = ctx.instance = _permissible(self.networkid)
        numbers = [account.id for account in _named(ctx, self)]
        mine = NetworkPermission.network_id == network.id, NetworkPermission.account_id.in_(numbers)
        ctx.session.execute(delete(NetworkPermission).where(*mine))


class ResetNetworkPermissions(
    Command,
    name="resetNetworkPermissions",
    answer=success(),
    roles=EVERYONE,
    event="NETWORK.PERMISSION.UPDATE",
    instance="Network",
):
    """Have nobody but its owner put guests on a network; the guests that are there stay."""

    networkid: Network = required()

    def run(self, ctx: Context) -> None:
        """Remove all rows."""
        network = ctx.instance = _permissible(self.networkid)
        ctx.session.execute(delete(NetworkPermission).where(NetworkPermission.network_id == network.id))


class ListNetworkPermissions(
    Command, name="listNetworkPermissions", answer=many("networkpermission", permission_views), roles=EVERYONE
):
    """List the accounts that may use a network of one's own."""

    writes = False

    networkid: Network = required()

    def run(self, ctx: Context) -> tuple[Sequence[NetworkPermission], int]:
        """Return the rows, by account."""
        require_owned(ctx, self.networkid, "networkid")
        mine = NetworkPermission.network_id == self.networkid.id
        rows = ctx.session.scalars(select(NetworkPermission).where(mine).order_by(NetworkPermission.account_id)).all()
        return rows, len(rows)
