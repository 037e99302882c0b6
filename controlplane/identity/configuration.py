"""The commands on settings (listConfigurations, updateConfiguration, resetConfiguration)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.api.caller import ADMINS
from controlplane.api.command import Command, many, one
from controlplane.api.context import Context
from controlplane.api.listing import Paged
from controlplane.api.parameters import optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Base, now
from controlplane.db.configuration import GLOBAL, SETTINGS, ConfigurationValue, Setting
from controlplane.errors import BadParameter
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.storage.volumes import StoragePool
from controlplane.zone.clusters import Cluster
from controlplane.zone.zones import Zone

SUBGROUP = "Others"


class ConfigurationChange(Base):
    """The history of settings: who changed what when; None is the inherited or default value."""

    __tablename__ = "configuration_changes"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(default=now)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(String(255), index=True)
    scope: Mapped[str] = mapped_column(String(20))
    scope_id: Mapped[int]
    old: Mapped[str | None] = mapped_column(String(4096))
    new: Mapped[str | None] = mapped_column(String(4096))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a setting has a value: everywhere (``Global``, 0), or for one zone, cluster, pool, account or domain."""

    scope: str = GLOBAL
    number: int = 0


@dataclass(frozen=True, slots=True)
class Shown:
    """A setting and its value in one place; ``scope_id`` is what people call the place."""

    setting: Setting
    place: Place
    value: str


@dataclass(kw_only=True)
class ConfigurationResponse(Response):
    """A setting."""

    name: str
    value: str
    defaultvalue: str
    description: str
    displaytext: str
    category: str
    group: str
    subgroup: str
    type: str
    isdynamic: bool
    scope: str
    options: str | None = None


def configuration_views(ctx: Context, rows: Sequence[Shown]) -> list[ConfigurationResponse]:
    """Show settings."""
    del ctx
    return [
        ConfigurationResponse(
            name=row.setting.name,
            value=row.value,
            defaultvalue=row.setting.default,
            description=row.setting.description,
            displaytext=_title(row.setting.name),
            category=row.setting.category,
            group=row.setting.category,
            subgroup=SUBGROUP,
            type=row.setting.kind,
            isdynamic=True,
            scope=row.place.scope if row.place.scope != GLOBAL else ",".join((GLOBAL, *row.setting.scopes)),
            options=",".join(row.setting.choices) or None,
        )
        for row in rows
    ]


def _title(name: str) -> str:
    words = name.replace(".", " ").replace("_", " ")
    return words[:1].upper() + words[1:]


class _Placed(Command):
    """A command on settings in one place: everywhere, or where one of these says."""

    zoneid: Zone | None = optional()
    clusterid: Cluster | None = optional()
    storageid: StoragePool | None = optional()
    accountid: Account | None = optional()
    domainid: Domain | None = optional()

    def place(self) -> Place:
        """Return the place.

        :raises BadParameter: two are given.
        """
        rows = {
            "Zone": self.zoneid,
            "Cluster": self.clusterid,
            "StoragePool": self.storageid,
            "Account": self.accountid,
            "Domain": self.domainid,
        }
        given = [(scope, row.id) for scope, row in rows.items() if row is not None]
        if len(given) > 1:
            raise BadParameter(
                "Invalid parameter scope: give at most one of zoneid, clusterid, storageid, accountid and domainid."
            )
        return Place(*given[0]) if given else Place()


def setting_named(name: str, place: Place) -> Setting:
    """Return the setting of this name.

    :raises BadParameter: there is none, or it has no value of its own in such a place.
    """
    setting = {known.lower(): setting for known, setting in SETTINGS.items()}.get(name.lower())
    if setting is None:
        raise BadParameter(f"Invalid parameter name value={name}: there is no such setting; see listConfigurations.")
    if place.scope != GLOBAL and place.scope not in setting.scopes:
        where = ", ".join((GLOBAL, *setting.scopes))
        raise BadParameter(f"Invalid parameter name value={name}: it can be set for {where}, not for a {place.scope}.")
    return setting


def checked(setting: Setting, value: str) -> str:
    """Return the value in its canonical spelling.

    :raises BadParameter: it is not of the setting's kind, or outside what is allowed.
    """
    wanted = ""
    if setting.kind == "Boolean":
        value = value.strip().lower()
        wanted = "" if value in ("true", "false") else "true or false"
    elif setting.kind == "Number":
        wanted = "" if _is_within(setting, value.strip()) else _range_of(setting)
        value = value.strip() if wanted else str(int(value))
    elif setting.choices:
        spelled = {choice.lower(): choice for choice in setting.choices}
        wanted = "" if value.lower() in spelled else f"one of {', '.join(setting.choices)}"
        value = spelled.get(value.lower(), value)
    elif not value.isprintable():
        wanted = "one line of printable characters"
    if wanted:
        raise BadParameter(f"Invalid parameter value value={value}: {setting.name} must be {wanted}.")
    return value


def _is_within(setting: Setting, value: str) -> bool:
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
        return False
    number = int(value)
    low, high = setting.minimum, setting.maximum
    return (low is None or low <= number) and (high is None or number <= high)


def _range_of(setting: Setting) -> str:
    low = "" if setting.minimum is None else f" from {setting.minimum}"
    high = "" if setting.maximum is None else f" up to {setting.maximum}"
    return f"a whole number{low}{high}"


class ListConfigurations(
    _Placed,
    Paged,
    name="listConfigurations",
    answer=many("configuration", configuration_views),
    roles=ADMINS,
    unsupported=("imagestoreuuid",),
):
    """List settings with their values: everywhere, or as they are in force in one place."""

    writes = False
    name: str | None = optional()
    category: str | None = optional()
    group: str | None = optional()
    subgroup: str | None = optional()
    parent: str | None = optional(description="settings that depend on this one; none does")
    keyword: str | None = optional(description="part of the name or the description")

    def run(self, ctx: Context) -> tuple[list[Shown], int]:
        """Return a page of settings."""
        place = self.place()
        found = [setting for _, setting in sorted(SETTINGS.items()) if self._is_wanted(setting, place)]
        limit, offset = self.window(ctx.session)
        page = found[offset : None if limit is None else offset + limit]
        values = _values(ctx.session, [setting.name for setting in page])
        return [Shown(setting, place, _in_force(setting, values, place)) for setting in page], len(found)

    def _is_wanted(self, setting: Setting, place: Place) -> bool:
        word = (self.keyword or "").lower()
        return (
            (self.name or setting.name).lower() == setting.name.lower()
            and (self.category or setting.category).lower() == setting.category.lower()
            and (self.group or setting.category).lower() == setting.category.lower()
            and (self.subgroup or SUBGROUP).lower() == SUBGROUP.lower()
            and not self.parent
            and (word in setting.name.lower() or word in setting.description.lower())
            and (place.scope == GLOBAL or place.scope in setting.scopes)
        )


Values = dict[tuple[str, str, int], str]


def _values(session: Session, names: Sequence[str]) -> Values:
    rows = session.scalars(select(ConfigurationValue).where(ConfigurationValue.name.in_(names)))
    return {(row.name, row.scope, row.scope_id): row.value for row in rows}


def _in_force(setting: Setting, values: Values, place: Place) -> str:
    everywhere = values.get((setting.name, GLOBAL, 0), setting.default)
    return values.get((setting.name, place.scope, place.number), everywhere)


class UpdateConfiguration(
    _Placed,
    name="updateConfiguration",
    answer=one("configuration", configuration_views),
    event="CONFIGURATION.VALUE.EDIT",
    unsupported=("imagestoreuuid",),
):
    """Give a setting a value, everywhere or in one place; it is in force at once."""

    name: str = required()
    value: str | None = optional(length=4096)

    def run(self, ctx: Context) -> Shown:
        """Keep the value and its history."""
        if self.value is None:
            raise BadParameter("Invalid parameter value: give one; resetConfiguration goes back to the default.")
        place = self.place()
        setting = setting_named(self.name, place)
        value = checked(setting, self.value)
        change(ctx, setting, place, value)
        return Shown(setting, place, value)


class ResetConfiguration(
    _Placed,
    name="resetConfiguration",
    answer=one("configuration", configuration_views),
    event="CONFIGURATION.VALUE.EDIT",
    unsupported=("imagestoreid",),
):
    """Take a setting's own value away: the default is in force again, or in one place what is set everywhere."""

    name: str = required()

    def run(self, ctx: Context) -> Shown:
        """Forget the value, and keep its history."""
        place = self.place()
        setting = setting_named(self.name, place)
        change(ctx, setting, place, None)
        return Shown(setting, place, _in_force(setting, _values(ctx.session, [setting.name]), place))


def change(ctx: Context, setting: Setting, place: Place, value: str | None) -> None:
    """Give a setting a value in one place, or with None take it away, and write down who did."""
    row = ctx.session.get(ConfigurationValue, (setting.name, place.scope, place.number))
    old = row.value if row is not None else None
    if row is None and value is not None:
        row = ConfigurationValue(name=setting.name, scope=place.scope, scope_id=place.number, value=value)
        ctx.session.add(row)
    elif row is not None and value is None:
        ctx.session.delete(row)
    elif row is not None and value is not None:
        row.value = value
    ctx.session.add(
        ConfigurationChange(
            user_id=ctx.caller.user_id,
            name=setting.name,
            scope=place.scope,
            scope_id=place.number,
            old=old,
            new=value,
        )
    )
    ctx.note = f"{setting.name} ({place.scope}) from {_told(old)} to {_told(value)}"
    ctx.session.flush()


def _told(value: str | None) -> str:
    return "the inherited value" if value is None else f"'{value}'"


@dataclass(kw_only=True)
class SubgroupResponse(Response):
    """A part of a group."""

    name: str
    precedence: int


@dataclass(kw_only=True)
class ConfigurationGroupResponse(Response):
    """A group of settings."""

    name: str
    description: str
    precedence: int
    subgroup: list[SubgroupResponse]


def group_views(ctx: Context, rows: Sequence[tuple[int, str]]) -> list[ConfigurationGroupResponse]:
    """Show groups."""
    del ctx
    return [
        ConfigurationGroupResponse(
            name=name,
            description=f"Settings of the category {name}",
            precedence=number,
            subgroup=[SubgroupResponse(name=SUBGROUP, precedence=1)],
        )
        for number, name in rows
    ]


class ListConfigurationGroups(
    Paged, name="listConfigurationGroups", answer=many("configurationgroup", group_views), roles=ADMINS
):
    """List the groups that settings are shown in: one for each category."""

    writes = False
    group: str | None = optional(description="name of the group")
    keyword: str | None = optional()

    def run(self, ctx: Context) -> tuple[Sequence[Any], int]:
        """Return a page of groups."""
        groups = enumerate(sorted({setting.category for setting in SETTINGS.values()}), 1)
        word, name = (self.keyword or "").lower(), (self.group or "").lower()
        found = [(number, group) for number, group in groups if word in group.lower() and name in ("", group.lower())]
        return self.page_of(ctx.session, found)
