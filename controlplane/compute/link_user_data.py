"""linkUserDataToTemplate: user data that machines of a template get unless, or even though, they bring their own."""

from __future__ import annotations

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one
from controlplane.api.context import Context
from controlplane.api.parameters import optional
from controlplane.compute.user_data import POLICIES
from controlplane.compute.virtual_machines import UserData
from controlplane.errors import BadParameter
from controlplane.storage.template_commands import refuse_foreign
from controlplane.storage.template_views import template_views
from controlplane.storage.templates import Template


class LinkUserDataToTemplate(Command, name="linkUserDataToTemplate", answer=one("template", template_views),
                             roles=EVERYONE, instance="Template", event="TEMPLATE.UPDATE"):  # fmt: skip
    """Link registered user data to a template or an ISO; without ``userdataid`` the link is removed."""

    templateid: Template | None = optional()
    isoid: Template | None = optional()
    userdataid: UserData | None = optional()
    userdatapolicy: str | None = optional("ALLOWOVERRIDE", choices=POLICIES)

    def run(self, ctx: Context) -> Template:
        """Link or unlink; machines that are there keep what they have."""
        if (self.templateid is None) == (self.isoid is None):
            raise BadParameter("Parameter templateid is missing: give either templateid or isoid.")
        template = self.templateid or self.isoid
        assert template is not None
        refuse_foreign(ctx, template)
        template.userdata_id = self.userdataid.id if self.userdataid else None
        template.userdata_policy = self.userdatapolicy if self.userdataid else None
        return template
