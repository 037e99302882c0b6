"""Health checks: how the guests behind a load balancer rule are watched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter, RuleConflict
from controlplane.network.balancer_trial import must_be_possible, require
from controlplane.network.load_balancers import HealthCheckPolicy, LoadBalancer
from controlplane.network.rules import remove_rows, set_custom_id
from controlplane.network.stickiness import rule_fields

TAGGABLE = "LBHealthCheckPolicy"
_PATH = re.compile(r"/[A-Za-z0-9._~/%?&=+:@,-]{0,254}", re.ASCII)


@dataclass(kw_only=True)
class PolicyResponse(Response):
    """One health check policy; times in seconds. The odd spellings are CloudStack's."""

    id: str
    pingpath: str
    description: str | None = None
    healthcheckinterval: int
    responsetime: int
    healthcheckthresshold: int
    unhealthcheckthresshold: int
    state: str = "Active"
    fordisplay: bool | None = None


@dataclass(kw_only=True)
class HealthCheckResponse(Response):
    """A rule's health check policies: one."""

    lbruleid: str
    account: str
    domain: str
    domainid: str
    zoneid: str
    healthcheckpolicy: list[PolicyResponse]


def health_check_views(ctx: Context, rows: Sequence[HealthCheckPolicy]) -> list[HealthCheckResponse]:
    """Show health check policies, each within its rule."""
    around = rule_fields(ctx, [row.load_balancer_id for row in rows])
    return [
        HealthCheckResponse(
            healthcheckpolicy=[
                PolicyResponse(
                    id=row.uuid,
                    pingpath=row.path,
                    description=row.description,
                    healthcheckinterval=row.interval,
                    responsetime=row.timeout,
                    healthcheckthresshold=row.healthy,
                    unhealthcheckthresshold=row.unhealthy,
                    fordisplay=row.display if ctx.caller.is_admin else None,
                )
            ],
            **around[row.load_balancer_id],
        )
        for row in rows
    ]


def ping_path(text: str) -> str:
    """Return the text, which must be a URL path (RFC 3986 §3.3), without quotes, or empty.

    :raises ValueError: it is none.
    """
    if text.strip() and not _PATH.fullmatch(text.strip()):
        raise ValueError("it must be a URL path such as /health, without blanks and quotes")
    return text.strip()


class CreateLbHealthCheckPolicy(Command, name="createLBHealthCheckPolicy", job=True, creates=True,
                                answer=one("healthcheckpolicies", health_check_views), instance="LBHealthCheckPolicy",
                                roles=EVERYONE, event="LB.HEALTHCHECKPOLICY.CREATE"):  # fmt: skip
    """Watch the guests behind a rule: by HTTP where a path is given, by a TCP connection otherwise."""

    lbruleid: LoadBalancer = required()
    description: str | None = optional()
    fordisplay: bool | None = optional(True, admin=True)
    healthythreshold: int | None = optional(2, description="successes in a row until a guest counts as up")
    intervaltime: int | None = optional(5, description="seconds between checks")
    pingpath: str | None = optional(
        check=ping_path, description="such as /health; without one, a TCP connection is enough"
    )
    responsetimeout: int | None = optional(2, description="seconds to wait for an answer")
    unhealthythreshold: int | None = optional(10, description="failures in a row until a guest counts as down")

    def run(self, ctx: Context) -> HealthCheckPolicy:
        """Check, and make the policy."""
        rule = self.lbruleid
        require(rule.network, "HealthCheckPolicy", "health checks")
        if rule.protocol == "udp":
            raise BadParameter(
                f"Invalid parameter lbruleid value={rule.uuid}: load balancer rule {rule.name} is udp; health checks "
                "are for tcp, tcp-proxy and ssl."
            )
        if rule.health is not None:
            raise RuleConflict(
                f"Invalid parameter lbruleid value={rule.uuid}: load balancer rule {rule.name} has the health check "
                f"policy {rule.health.uuid} already: delete it first."
            )
        policy = HealthCheckPolicy(load_balancer_id=rule.id, path=self.pingpath or "")
        policy.healthy = _within("healthythreshold", self.healthythreshold or 0, 10)
        policy.unhealthy = _within("unhealthythreshold", self.unhealthythreshold or 0, 100)
        policy.interval = _within("intervaltime", self.intervaltime or 0, 86_400)
        policy.timeout = _within("responsetimeout", self.responsetimeout or 0, 86_400)
        if policy.timeout >= policy.interval:
            raise BadParameter(
                f"Invalid parameter responsetimeout value={policy.timeout}: it must be less than intervaltime, "
                f"{policy.interval} seconds."
            )
        policy.description, policy.display = self.description, self.fordisplay is not False
        ctx.session.add(policy)
        must_be_possible(ctx.session, rule, "lbruleid")
        ctx.touch(rule)
        return policy


def _within(parameter: str, value: int, most: int) -> int:
    if not 1 <= value <= most:
        raise BadParameter(f"Invalid parameter {parameter} value={value}: it must be 1 to {most}.")
    return value


class UpdateLbHealthCheckPolicy(Command, name="updateLBHealthCheckPolicy", job=True, instance="LBHealthCheckPolicy",
                                answer=one("healthcheckpolicies", health_check_views), roles=EVERYONE,
                                event="LB.HEALTHCHECKPOLICY.UPDATE"):  # fmt: skip
    """Change how a health check policy is shown."""

    id: HealthCheckPolicy = required()
    customid: str | None = optional(admin=True)
    fordisplay: bool | None = optional(admin=True)

    def run(self, ctx: Context) -> HealthCheckPolicy:
        """Change it."""
        if self.fordisplay is not None:
            self.id.display = self.fordisplay
        set_custom_id(ctx, self.id, TAGGABLE, self.customid)
        return self.id


class DeleteLbHealthCheckPolicy(Command, name="deleteLBHealthCheckPolicy", answer=success(), job=True,
                                instance="LBHealthCheckPolicy", roles=EVERYONE,
                                event="LB.HEALTHCHECKPOLICY.DELETE"):  # fmt: skip
    """Watch the guests behind a rule as the router does by default."""

    id: HealthCheckPolicy = required()

    def run(self, ctx: Context) -> None:
        """Delete it."""
        ctx.instance = self.id
        ctx.touch(self.id)
        remove_rows(ctx.session, HealthCheckPolicy, TAGGABLE, HealthCheckPolicy.id == self.id.id)


class ListLbHealthCheckPolicies(ListCommand, name="listLBHealthCheckPolicies", roles=EVERYONE,
                                answer=many("healthcheckpolicies", health_check_views)):  # fmt: skip
    """List health check policies."""

    table = HealthCheckPolicy

    id: HealthCheckPolicy | None = matching(HealthCheckPolicy.id)
    lbruleid: LoadBalancer | None = matching(HealthCheckPolicy.load_balancer_id)
    fordisplay: bool | None = matching(HealthCheckPolicy.display, admin=True)
