"""Elastic addresses: public addresses of guests that stay on a shared network (ElasticIp, ElasticLb)."""

from __future__ import annotations

from typing import NamedTuple


class Elastic(NamedTuple):
    """What an appliance of a shared network is told of the ways beside its own.

    :param gateway: the operator's, on the guests' side: it leads wherever no public address stands for a guest.
    :param inside: CIDRs where guests are known by their own addresses whatever public ones they have: those of all
        pods, and what the operator names besides.
    :param way_out: the appliance is the guests' own gateway, and translates for those that have a public address;
        otherwise it only balances, and ``gateway`` leads it to the members in other pods.
    """

    gateway: str
    inside: tuple[str, ...]
    way_out: bool = True
