"""API keys: the pair that a user signs requests with.

The secret key is answered when the pair is made and to ``getUserKeys``, and nowhere else.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one
from controlplane.api.context import Context
from controlplane.api.parameters import required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter
from controlplane.identity.privilege import require_user
from controlplane.identity.users import User

_RANDOM_BYTES = 48
_OWN_KEY = re.compile(r"[A-Za-z0-9_-]{32,255}")


@dataclass(kw_only=True)
class KeysResponse(Response):
    """A user's pair of keys."""

    apikey: str | None = None
    secretkey: str | None = None


def keys_views(ctx: Context, rows: Sequence[User]) -> list[KeysResponse]:
    """Show the keys; who may see them has been checked."""
    del ctx
    return [KeysResponse(apikey=row.api_key, secretkey=row.secret_key) for row in rows]


class RegisterUserKeys(
    Command, name="registerUserKeys", answer=one("userkeys", keys_views), roles=EVERYONE, event="REGISTER.USER.KEY"
):
    """Give a user a fresh pair of keys; the former ones are worth nothing any more."""

    id: User = required()

    def run(self, ctx: Context) -> User:
        """Draw the keys."""
        require_user(ctx, self.id)
        draw_keys(self.id)
        return self.id


class GetUserKeys(Command, name="getUserKeys", answer=one("userkeys", keys_views), roles=EVERYONE):
    """Show a user's keys to itself, and to admins whose role covers the user's."""

    writes = False
    id: User = required()

    def run(self, ctx: Context) -> User:
        """Check who asks."""
        require_user(ctx, self.id)
        return self.id


def draw_keys(user: User) -> None:
    """Give the user a random pair of keys, of 384 bits each."""
    user.api_key, user.secret_key = secrets.token_urlsafe(_RANDOM_BYTES), secrets.token_urlsafe(_RANDOM_BYTES)


def set_keys(session: Session, user: User, api_key: str | None, secret_key: str | None) -> None:
    """Give the user keys of somebody's choice.

    :raises BadParameter: one is missing, easy to guess, or another user's.
    """
    for name, key in (("userapikey", api_key), ("usersecretkey", secret_key)):
        if key is None or not _OWN_KEY.fullmatch(key):
            raise BadParameter(
                f"Invalid parameter {name}: userapikey and usersecretkey go together, and each has 32 to 255 "
                "letters, digits, hyphens and underscores."
            )
    if session.scalar(select(User.id).where(User.api_key == api_key, User.id != user.id)) is not None:
        raise BadParameter("Invalid parameter userapikey: another user has this key.")
    user.api_key, user.secret_key = api_key, secret_key
