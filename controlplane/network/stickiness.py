"""Stickiness policies: how a client stays with one guest behind a load balancer rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import Records, as_pairs, matching, optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter, RuleConflict
from controlplane.identity.ownership import owner_fields
from controlplane.network.balancer_trial import must_be_possible, stickiness_methods
from controlplane.network.balancing import printable
from controlplane.network.load_balancers import LoadBalancer, StickinessPolicy
from controlplane.network.networks import Network
from controlplane.network.rules import remove_rows, rows_by_id, set_custom_id
from controlplane.zone.zones import Zone

TAGGABLE = "LBStickinessPolicy"


@dataclass(kw_only=True)
class PolicyResponse(Response):
    """One stickiness policy."""

    id: str
    name: str
    methodname: str
    description: str | None = None
    params: dict[str, str]
    state: str = "Active"
    fordisplay: bool | None = None


@dataclass(kw_only=True)
class StickinessResponse(Response):
    """A rule's stickiness policies: one."""

    lbruleid: str
    name: str
    description: str | None = None
    state: str = "Active"
    account: str
    domain: str
    domainid: str
    zoneid: str
    stickinesspolicy: list[PolicyResponse]


def stickiness_views(ctx: Context, rows: Sequence[StickinessPolicy]) -> list[StickinessResponse]:
    """Show stickiness policies, each within its rule."""
    around = rule_fields(ctx, [row.load_balancer_id for row in rows])
    return [
        StickinessResponse(
            name=row.name,
            description=row.description,
            stickinesspolicy=[
                PolicyResponse(
                    id=row.uuid,
                    name=row.name,
                    methodname=row.method,
                    description=row.description,
                    params=row.params,
                    fordisplay=row.display if ctx.caller.is_admin else None,
                )
            ],
            **around[row.load_balancer_id],
        )
        for row in rows
    ]


def rule_fields(ctx: Context, numbers: Sequence[int]) -> dict[int, dict[str, str]]:
    """Return, by rule number, the response fields that say which rule and whose it is."""
    rules = ctx.session.scalars(select(LoadBalancer).where(LoadBalancer.id.in_(numbers))).all()
    owners = owner_fields(ctx, rules)
    networks = rows_by_id(ctx.session, (Network.id, Network.zone_id), (rule.network_id for rule in rules))
    zones = rows_by_id(ctx.session, (Zone.id, Zone.uuid), (network.zone_id for network in networks.values()))
    return {
        rule.id: {
            "lbruleid": rule.uuid,
            "zoneid": zones[networks[rule.network_id].zone_id].uuid,
            **{name: owners[rule.account_id][name] for name in ("account", "domain", "domainid")},
        }
        for rule in rules
    }


def _params(records: Sequence[dict[str, str]]) -> dict[str, str]:
    """Read ``param[0].name=…&param[0].value=…``, or the short form ``param[0].cookie-name=…``."""
    return as_pairs(
        [
            {"key": record["name"], "value": record.get("value", "")} if "name" in record else record
            for record in records
        ]
    )


class CreateLbStickinessPolicy(Command, name="createLBStickinessPolicy", envelope="createLBStickinessPolicy",
                               answer=one("stickinesspolicies", stickiness_views), job=True, creates=True,
                               instance="LBStickinessPolicy", roles=EVERYONE,
                               event="LB.STICKINESSPOLICY.CREATE"):  # fmt: skip
    """Have clients stay with one guest of a load balancer rule."""

    lbruleid: LoadBalancer = required()
    methodname: str = required(description="as SupportedStickinessMethods of the network's provider lists them")
    name: str = required(check=printable)
    description: str | None = optional()
    fordisplay: bool | None = optional(True, admin=True)
    param: Records | None = optional(description="parameters of the method: [0].name, [0].value")

    def run(self, ctx: Context) -> StickinessPolicy:
        """Check, and make the policy."""
        rule = self.lbruleid
        if rule.stickiness is not None:
            raise RuleConflict(
                f"Invalid parameter lbruleid value={rule.uuid}: load balancer rule {rule.name} has the stickiness "
                f"policy {rule.stickiness.name} ({rule.stickiness.uuid}) already: delete it first."
            )
        method, params = self._checked(rule.network)
        policy = StickinessPolicy(load_balancer_id=rule.id, name=self.name, method=method, params=params)
        policy.description, policy.display = self.description, self.fordisplay is not False
        ctx.session.add(policy)
        must_be_possible(ctx.session, rule, "lbruleid")
        ctx.touch(rule)
        return policy

    def _checked(self, network: Network) -> tuple[str, dict[str, str]]:
        """Return method and parameters, when the provider has them."""
        methods = stickiness_methods(network)
        spelled = {method.lower(): method for method in methods}
        method = spelled.get(self.methodname.strip().lower())
        if method is None:
            raise BadParameter(
                f"Invalid parameter methodname value={self.methodname}: network {network.name} supports "
                f"{', '.join(methods) or 'none'}."
            )
        params, known = _params(self.param or []), methods[method]
        for name in params:
            if name not in known:
                raise BadParameter(
                    f"Invalid parameter param value={name}: {method} has {', '.join(known) or 'no parameters'}."
                )
        missing = [name for name, declared in known.items() if declared.get("required") and not params.get(name)]
        if missing:
            raise BadParameter(f"Invalid parameter param: {method} needs {', '.join(missing)}.")
        return method, params


class UpdateLbStickinessPolicy(Command, name="updateLBStickinessPolicy", job=True, instance="LBStickinessPolicy",
                               answer=one("stickinesspolicies", stickiness_views), roles=EVERYONE,
                               event="LB.STICKINESSPOLICY.UPDATE"):  # fmt: skip
    """Change how a stickiness policy is shown."""

    id: StickinessPolicy = required()
    customid: str | None = optional(admin=True)
    fordisplay: bool | None = optional(admin=True)

    def run(self, ctx: Context) -> StickinessPolicy:
        """Change it."""
        if self.fordisplay is not None:
            self.id.display = self.fordisplay
        set_custom_id(ctx, self.id, TAGGABLE, self.customid)
        return self.id


class DeleteLbStickinessPolicy(Command, name="deleteLBStickinessPolicy", envelope="deleteLBstickinessrruleresponse",
                               answer=success(), job=True, instance="LBStickinessPolicy", roles=EVERYONE,
                               event="LB.STICKINESSPOLICY.DELETE"):  # fmt: skip
    """Let clients be balanced anew each time."""

    id: StickinessPolicy = required()

    def run(self, ctx: Context) -> None:
        """Delete it."""
        ctx.instance = self.id
        ctx.touch(self.id)
        remove_rows(ctx.session, StickinessPolicy, TAGGABLE, StickinessPolicy.id == self.id.id)


class ListLbStickinessPolicies(ListCommand, name="listLBStickinessPolicies", roles=EVERYONE,
                               answer=many("stickinesspolicies", stickiness_views)):  # fmt: skip
    """List stickiness policies."""

    table = StickinessPolicy
    keywords = (StickinessPolicy.name,)

    id: StickinessPolicy | None = matching(StickinessPolicy.id)
    lbruleid: LoadBalancer | None = matching(StickinessPolicy.load_balancer_id)
    fordisplay: bool | None = matching(StickinessPolicy.display, admin=True)
