"""Stickiness: CloudStack's three methods and their parameters, as haproxy does them.

haproxy had ``appsession`` once; a stick table does the same today. The table below is what the API shows
(SupportedStickinessMethods) and what a policy is checked against: one description for both.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import NamedTuple

from drivers.balancing import LoadBalancer, Stickiness
from drivers.network.virtual_router.syntax import matched


class Parameter(NamedTuple):
    """A parameter of a method. A flag is on when it is given, unless its value is ``false``."""

    name: str
    pattern: re.Pattern[str]
    right: str
    description: str
    flag: bool = False


_TOKEN = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_FLAG = re.compile(r"|true|false", re.ASCII | re.IGNORECASE)
_TIME = re.compile(r"[1-9][0-9]{0,8}(?:ms|s|m|h|d)?", re.ASCII)
_SIZE = re.compile(r"[1-9][0-9]{0,6}k?", re.ASCII)
_LENGTH = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)
_COOKIE_DOMAIN = re.compile(r"\.?[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,8}", re.ASCII)


def _flag(name: str, description: str) -> Parameter:
    return Parameter(name, _FLAG, "true or false", description, flag=True)


_NAME = Parameter("cookie-name", _TOKEN, "letters, digits, dots, dashes, underscores", "Name of the cookie.")

METHODS: dict[str, tuple[str, tuple[Parameter, ...]]] = {
    "LbCookie": (
        "A cookie of the load balancer keeps a client at its server.",
        (
            _NAME,
            Parameter(
                "mode",
                re.compile("insert|rewrite|prefix"),
                "insert, rewrite or prefix",
                "How the cookie is set; insert unless given.",
            ),
            _flag("nocache", "Mark responses that set the cookie as not cacheable."),
            _flag("indirect", "Keep the cookie from the servers, and set it only where it is needed."),
            _flag("postonly", "Set the cookie in answers to POST requests only."),
            Parameter("domain", _COOKIE_DOMAIN, "a domain name", "The cookie's domain."),
        ),
    ),
    "AppCookie": (
        "A cookie of the application keeps a client at its server.",
        (
            _NAME,
            Parameter(
                "length", _LENGTH, "a number of characters, up to 999", "Characters kept of it; 52 unless given."
            ),
            Parameter("holdtime", _TIME, "a time such as 3h", "How long an unused session is kept; 3h unless given."),
            _flag("request-learn", "Learn the server of a session from requests too."),
            _flag("prefix", "The cookie's name only begins with the given one."),
            Parameter(
                "mode",
                re.compile("path-parameters|query-string"),
                "path-parameters or query-string",
                "Where in the URL the session is looked for as well; path-parameters unless given.",
            ),
        ),
    ),
    "SourceBased": (
        "The source address keeps a client at its server.",
        (
            Parameter("tablesize", _SIZE, "a number such as 200k", "Addresses remembered; 200k unless given."),
            Parameter("expire", _TIME, "a time such as 30m", "How long an address is remembered; 30m unless given."),
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Sticky:
    """What a policy comes to: ``lines`` for haproxy, whether it needs HTTP, server cookies and a table."""

    lines: tuple[str, ...] = ()
    http: bool = False
    cookies: bool = False
    table: bool = False


def plan(rule: LoadBalancer) -> Sticky:
    """Decide how clients of a load balancer rule stick.

    :raises ValueError: the method or one of its parameters is unknown or malformed.
    """
    if rule.stickiness is None:
        return Sticky()
    params = _checked(rule.stickiness, f"Load balancer rule {rule.id}")
    if rule.stickiness.method == "SourceBased":
        size, expire = params.get("tablesize", "200k"), params.get("expire", "30m")
        return Sticky((f"stick-table type ip size {size} expire {expire} peers local", "stick on src"), table=True)
    if rule.stickiness.method == "AppCookie":
        return Sticky(_app_cookie(rule, params), http=True, table=True)
    return Sticky((_lb_cookie(rule, params),), http=True, cookies=True)


def _checked(policy: Stickiness, what: str) -> dict[str, str]:
    """Return the given parameters; flags that are off are left out."""
    if policy.method not in METHODS:
        raise ValueError(f"{what} has the stickiness method {policy.method!r}: it must be one of {', '.join(METHODS)}.")
    known = {parameter.name: parameter for parameter in METHODS[policy.method][1]}
    given: dict[str, str] = {}
    for name, value in policy.params:
        if name not in known:
            raise ValueError(f"{what}: {policy.method} has no parameter {name!r}; it has {', '.join(known)}.")
        matched(known[name].pattern, value, f"The stickiness parameter {name} of {what}", known[name].right)
        if not (known[name].flag and value.lower() == "false"):
            given[name] = value
    return given


def _default_name(rule: LoadBalancer) -> str:
    return "LB-" + hashlib.sha256(rule.id.encode()).hexdigest()[:12]


def _lb_cookie(rule: LoadBalancer, params: dict[str, str]) -> str:
    words = ["cookie", params.get("cookie-name", _default_name(rule)), params.get("mode", "insert")]
    if params.get("mode") == "rewrite" and "indirect" in params:
        raise ValueError(f"Load balancer rule {rule.id}: a cookie that is rewritten cannot be indirect: use insert.")
    words += [flag for flag in ("indirect", "nocache", "postonly") if flag in params]
    if "domain" in params:
        words += ["domain", params["domain"]]
    return " ".join(words)


def _app_cookie(rule: LoadBalancer, params: dict[str, str]) -> tuple[str, ...]:
    name = params.get("cookie-name", _default_name(rule))
    length, expire = params.get("length", "52"), params.get("holdtime", "3h")
    delimiter = "?" if params.get("mode") == "query-string" else ";"
    asked, answered = f"req.cook({name})", f"res.cook({name})"
    if "prefix" in params:
        # The value kept is the rest of the cookie's name with its value, as the application tells sessions by both.
        rest = f"regsub('^.*{name.replace('.', '[.]')}',''),field(1,;)"
        asked, answered = f'"req.fhdr(cookie),{rest}"', f'"res.fhdr(set-cookie),{rest}"'
    learn = "on" if "request-learn" in params else "match"
    when = (f" if {{ req.fhdr(cookie) -m sub {name} }}", f" if {{ res.fhdr(set-cookie) -m sub {name} }}")
    when = when if "prefix" in params else ("", "")
    return (
        f"stick-table type string len {length} size 200k expire {expire} peers local",
        f"stick store-response {answered}{when[1]}",
        f"stick {learn} {asked}{when[0]}",
        f"stick {learn} url_param({name},{delimiter})",
    )
