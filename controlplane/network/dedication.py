"""Dedication: what an operator keeps for the networks of one account, or of one domain with its tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from controlplane.api.context import Context
from controlplane.errors import BadParameter
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import account_named


def dedicated_to(ctx: Context, account: str | None, domain: Domain | None) -> tuple[int | None, int]:
    """Return the numbers of the account (None is the whole domain) and of the domain that are named.

    :raises BadParameter: none is named, or there is no such account.
    """
    if account is not None:
        found = account_named(ctx, account, domain)
        return found.id, found.domain_id
    if domain is None:
        raise BadParameter("Invalid parameter domainid: name the domain, or the account with its domain.")
    return None, domain.id


def dedicated_fields(session: Session, rows: Sequence[Any]) -> dict[int, dict[str, Any]]:
    """Return, by row number, the response fields that say for whom each is kept; none where it is for everybody."""
    accounts = select(Account.id, Account.name).where(Account.id.in_({row.account_id for row in rows} - {None}))
    domains = select(Domain.id, Domain.uuid, Domain.name).where(Domain.id.in_({row.domain_id for row in rows} - {None}))
    names = {number: name for number, name in session.execute(accounts)}
    known = {number: {"domainid": uuid, "domain": name} for number, uuid, name in session.execute(domains)}
    return {row.id: {"account": names.get(row.account_id), **known.get(row.domain_id, {})} for row in rows}


def of_realm(ctx: Context, query: Select[Any], table: Any, account: str | None, domain: Domain | None) -> Select[Any]:
    """Keep the rows that are dedicated to the account, or to the domain, where one is named."""
    if account is not None:
        return query.where(table.account_id == account_named(ctx, account, domain).id)
    return query.where(table.domain_id == domain.id) if domain is not None else query
