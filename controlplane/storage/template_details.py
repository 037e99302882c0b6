"""The details of templates and ISOs."""

from __future__ import annotations

from controlplane.api.context import Context
from controlplane.identity.details import Detailed, detailed
from controlplane.offering.create_service_offering import checked_details
from controlplane.storage.templates import Template


def describe(ctx: Context, row: Template, given: dict[str, str]) -> None:
    """Accept what registerTemplate would.

    :raises BadParameter: a name has other than letters and digits.
    """
    del ctx, row
    checked_details(given)


detailed(Detailed("Template", Template, "details", describe, only=Template.format != "ISO"))
detailed(Detailed("ISO", Template, "details", describe, only=Template.format == "ISO"))
