"""Who may put guests on a network besides its owner: every account of a domain, or accounts that were permitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, ForeignKey, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.api.context import Context
from controlplane.db.base import Base
from controlplane.errors import Forbidden
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import owner_fields
from controlplane.network.networks import Network

ACCOUNT, DOMAIN = "Account", "Domain"
"""The kinds of ``Network.acl_type``."""


class NetworkPermission(Base):
    """An account that may use another's network (createNetworkPermissions)."""

    __tablename__ = "network_permissions"

    network_id: Mapped[int] = mapped_column(ForeignKey("networks.id", ondelete="CASCADE"), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True, index=True)


def usable_by(accounts: Sequence[int], domain_path: str) -> ColumnElement[bool]:
    """Return the condition for networks that others have and these accounts, of one domain, may use.

    :param domain_path: as ``Domain.path``: the numbers of the domains from ROOT down.
    """
    return or_(of_domain(domain_path), permitted(accounts))


def of_domain(domain_path: str) -> ColumnElement[bool]:
    """Return the condition for networks that all accounts of a domain may use."""
    chain = [int(part) for part in domain_path.split("/") if part]
    below = Network.subdomain_access & Network.domain_id.in_(chain)
    return (Network.acl_type == DOMAIN) & or_(Network.domain_id == chain[-1], below)


def permitted(accounts: Sequence[int]) -> ColumnElement[bool]:
    """Return the condition for networks that the accounts were permitted to use."""
    return Network.id.in_(select(NetworkPermission.network_id).where(NetworkPermission.account_id.in_(accounts)))


def require_use(session: Session, network: Network, owner: Account) -> None:
    """Make sure that guests of the account may be put on the network.

    :raises Forbidden: they may not.
    """
    if network.acl_type == ACCOUNT and network.account_id == owner.id:
        return
    mine = select(Network.id).where(Network.id == network.id, usable_by((owner.id,), owner.domain.path))
    if session.scalar(mine) is None:
        whose = "does not belong to" if network.acl_type == ACCOUNT else "is not for the domain of"
        raise Forbidden(f"Network {network.name} {whose} account {owner.name}, which was not permitted to use it.")


def scopes_of(ctx: Context, rows: Sequence[Network]) -> dict[int, dict[str, Any]]:
    """Return, by network number, the response fields that say whose each is: an account's, or all of a domain's."""
    owners = owner_fields(ctx, [row for row in rows if row.acl_type == ACCOUNT])
    wanted = {row.domain_id for row in rows if row.acl_type == DOMAIN}
    query = select(Domain.id, Domain.name, Domain.uuid, Domain.name_path).where(Domain.id.in_(wanted))
    found = ctx.session.execute(query) if wanted else ()
    domains = {number: {"domain": name, "domainid": uuid, "domainpath": path} for number, name, uuid, path in found}
    return {
        row.id: owners[row.account_id]
        if row.acl_type == ACCOUNT
        else domains[row.domain_id] | {"subdomainaccess": row.subdomain_access}
        for row in rows
    }
