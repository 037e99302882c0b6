"""What the cloud says of itself: its commands, its flags, its identity providers (listApis, listCapabilities)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from controlplane.api import throttle
from controlplane.api.caller import EVERYONE
from controlplane.api.command import REGISTRY, Command, many, one
from controlplane.api.context import Context
from controlplane.api.discovery import entry
from controlplane.api.envelope import VERSION
from controlplane.api.listing import Paged
from controlplane.api.parameters import Uuid, optional
from controlplane.api.responses import Response
from controlplane.db.configuration import GLOBAL, SETTINGS, ConfigurationValue
from controlplane.zone.zones import Zone


@dataclass(kw_only=True)
class ApiParameter(Response):
    """One parameter of a command."""

    name: str
    description: str
    type: str
    length: int
    required: bool
    since: str | None = None
    related: str | None = None


@dataclass(kw_only=True)
class ApiField(Response):
    """One field of a command's answer; ``response`` holds the fields of the objects in it."""

    name: str
    description: str
    type: str
    response: list[Any] | None = None


@dataclass(kw_only=True)
class ApiResponse(Response):
    """One command, as clients and the web UI build on it."""

    name: str
    description: str
    isasync: bool
    related: str
    since: str | None = None
    type: str | None = None
    params: list[ApiParameter]
    response: list[ApiField]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as they are: they were made for JSON, and there are tens of thousands of them."""
        return {name: value for name, value in vars(self).items() if value is not None}


def api_views(ctx: Context, rows: Sequence[type[Command]]) -> list[ApiResponse]:
    """Return the descriptions of these commands."""
    del ctx
    return [ApiResponse(**entry(command.command)) for command in rows]


class ListApis(Command, name="listApis", answer=many("api", api_views), roles=EVERYONE):
    """List the commands that the caller may use, with their parameters and answers."""

    writes = False

    name: str | None = optional(description="only the command of this name")

    def run(self, ctx: Context) -> list[type[Command]]:
        """Return the command classes; a name that is unknown or forbidden leaves none."""
        wanted = (REGISTRY[name] for name in sorted(REGISTRY) if self.name in (None, name))
        return [found for found in wanted if not found.authenticated or ctx.caller.may(found.command, found.roles)]


@dataclass(kw_only=True)
class CapabilitiesResponse(Response):
    """What the cloud can do, as clients ask before they offer it."""

    cloudstackversion: str = VERSION
    securitygroupsenabled: bool
    dynamicrolesenabled: bool = True
    userpublictemplateenabled: bool
    supportELB: str = "false"  # noqa: N815 - CloudStack's own spelling
    projectinviterequired: bool
    allowusercreateprojects: bool
    customdiskofferingminsize: int
    customdiskofferingmaxsize: int
    regionsecondaryenabled: bool = False
    kvmsnapshotenabled: bool = False
    allowuserviewdestroyedvm: bool
    allowuserexpungerecovervm: bool
    allowuserexpungerecovervolume: bool
    allowuserviewalldomainaccounts: bool
    allowuserforcestopvm: bool
    apilimitinterval: int | None = None
    apilimitmax: int | None = None
    kubernetesserviceenabled: bool = False
    kubernetesclusterexperimentalfeaturesenabled: bool = False
    defaultuipagesize: int
    customhypervisordisplayname: str = "Custom"
    dynamicscalingenabled: bool
    additionalconfigenabled: bool = False
    instanceleaseenabled: bool = False
    instancesdisksstatsretentionenabled: bool = False
    snapshotshowchainsize: bool = False


def capability_views(ctx: Context, rows: Sequence[None]) -> list[CapabilitiesResponse]:
    """Return what the cloud can do; limits of calls only where they are in force."""
    del rows
    values = {name: setting.default for name, setting in SETTINGS.items()}
    changed = select(ConfigurationValue.name, ConfigurationValue.value).where(ConfigurationValue.scope == GLOBAL)
    values.update((name, value) for name, value in ctx.session.execute(changed))

    def flag(name: str, *, default: bool) -> bool:
        return values.get(name, str(default)).lower() == "true"

    def number(name: str, default: int) -> int:
        return int(values.get(name, default))

    limited = flag(throttle.ENABLED.name, default=False)
    guarded = select(Zone.id).where(Zone.security_groups, Zone.removed.is_(None))
    return [
        CapabilitiesResponse(
            securitygroupsenabled=ctx.session.scalar(guarded.limit(1)) is not None,
            userpublictemplateenabled=flag("allow.public.user.templates", default=True),
            projectinviterequired=flag("project.invite.required", default=False),
            allowusercreateprojects=flag("allow.user.create.projects", default=True),
            customdiskofferingminsize=number("custom.diskoffering.size.min", 1),
            customdiskofferingmaxsize=number("custom.diskoffering.size.max", 1024),
            allowuserviewdestroyedvm=flag("allow.user.view.destroyed.vm", default=False) or ctx.caller.is_admin,
            allowuserexpungerecovervm=flag("allow.user.expunge.recover.vm", default=False) or ctx.caller.is_admin,
            allowuserexpungerecovervolume=flag("allow.user.expunge.recover.volume", default=True),
            allowuserviewalldomainaccounts=flag("allow.user.view.all.domain.accounts", default=False),
            allowuserforcestopvm=flag("allow.user.force.stop.vm", default=True),
            apilimitinterval=number(throttle.INTERVAL.name, 1) if limited else None,
            apilimitmax=number(throttle.MOST.name, 25) if limited else None,
            defaultuipagesize=number("default.ui.page.size", 20),
            dynamicscalingenabled=flag("enable.dynamic.scale.vm", default=False),
        )
    ]


class ListCapabilities(Command, name="listCapabilities", answer=one("capability", capability_views), roles=EVERYONE):
    """Tell what the cloud can do."""

    writes = False

    def run(self, ctx: Context) -> None:
        """There is nothing to look up: the answer is made of settings."""


@dataclass(kw_only=True)
class OauthProviderResponse(Response):
    """An identity provider that users may log in with."""

    id: str
    provider: str
    name: str
    description: str | None = None
    clientid: str | None = None
    redirecturi: str | None = None
    enabled: bool


def oauth_views(ctx: Context, rows: Sequence[Any]) -> list[OauthProviderResponse]:
    """Return the providers; there are none yet."""
    del ctx, rows
    return []


class ListOauthProvider(
    Paged,
    name="listOauthProvider",
    answer=many("oauthprovider", oauth_views),
    roles=EVERYONE,
    authenticated=False,
):
    """List the identity providers that the login page offers; the web UI asks before anybody has logged in."""

    id: Uuid | None = optional()
    provider: str | None = optional(description="accepted: there are none to choose from")
    keyword: str | None = optional(description="accepted: there are none to choose from")

    def run(self, ctx: Context) -> tuple[Sequence[Any], int]:
        """Return no provider: none can be registered yet."""
        return self.page_of(ctx.session, ())
