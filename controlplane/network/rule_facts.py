"""What facts of rules by the ten thousand have in common: their lists and addresses are read once, not once a rule."""

from __future__ import annotations

import json

from sqlalchemy import ColumnElement, String, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import Session

from controlplane.network.networks import Network
from controlplane.network.public_ips import ALLOCATING, PublicIp
from controlplane.network.rule_text import limiting as only_limiting


class Lists(dict[str, tuple[str, ...]]):
    """Lists by the JSON text that the database keeps; most rules have the same few.

    :param limiting: a list that names everyone is empty.
    """

    def __init__(self, *, limiting: bool = False) -> None:
        super().__init__()
        self._limiting = limiting

    def __missing__(self, text: str) -> tuple[str, ...]:
        """Read a list that is met for the first time."""
        items = json.loads(text)
        self[text] = found = only_limiting(items) if self._limiting else tuple(items)
        return found


def stored(column: ColumnElement[list[str]]) -> ColumnElement[str]:
    """Return the column as the text that the database keeps."""
    return sql_cast(column, String)


def addresses_of(session: Session, network_id: int) -> dict[int, str]:
    """Return the public addresses by number that the network, or its VPC, uses: not those that it is yet to get."""
    vpc = select(Network.vpc_id).where(Network.id == network_id).scalar_subquery()
    query = select(PublicIp.id, PublicIp.address).where((PublicIp.network_id == network_id) | (PublicIp.vpc_id == vpc))
    query = query.where(PublicIp.state != ALLOCATING)
    return {number: address for number, address in session.execute(query)}
