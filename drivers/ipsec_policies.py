"""Which algorithms a tunnel may be asked to use, in CloudStack's spelling: ``aes128-sha1;modp1536,aes256-sha256``.

A policy is one proposal or several, separated by commas: encryption, hash, and after a semicolon the Diffie-Hellman
group. The control plane reads it with the same function, so what is refused is refused at the API.
"""

from __future__ import annotations

ENCRYPTIONS = ("3des", "aes128", "aes192", "aes256")
COMBINED = ("aes128gcm16", "aes192gcm16", "aes256gcm16", "chacha20poly1305")
"""Encryption that protects integrity itself; the hash then serves the key derivation of IKE only."""
HASHES = ("md5", "sha1", "sha256", "sha384", "sha512")
GROUPS = (
    "modp1024", "modp1536", "modp2048", "modp3072", "modp4096", "modp6144", "modp8192",
    "ecp256", "ecp384", "ecp521", "curve25519",
)  # fmt: skip
_MOST = 8


def proposals(policy: str, *, ike: bool) -> tuple[str, ...]:
    """Return the policy's proposals as the daemon spells them.

    :param ike: of the IKE security association: it needs a group; of ESP one means perfect forward secrecy.
    :raises ValueError: the end of a sentence that says which word is wrong and what would be right.
    """
    parts = [part.strip().lower() for part in policy.split(",")]
    if len(parts) > _MOST:
        raise ValueError(f"it has {len(parts)} proposals, and {_MOST} are allowed")
    return tuple(_proposal(part, ike=ike) for part in parts)


def _proposal(part: str, *, ike: bool) -> str:
    suite, semicolon, group = part.partition(";")
    encryption, dash, digest = suite.partition("-")
    if encryption not in ENCRYPTIONS + COMBINED:
        known = ", ".join(ENCRYPTIONS + COMBINED)
        raise ValueError(f"{part!r} begins with the encryption {encryption!r}, which must be one of {known}")
    if not dash or digest not in HASHES:
        raise ValueError(f"{part!r} has the hash {digest!r}, which must be one of {', '.join(HASHES)}")
    if (semicolon or ike) and group not in GROUPS:
        raise ValueError(f"{part!r} has the DH group {group!r}, which must be one of {', '.join(GROUPS)}")
    combined = [f"prf{digest}"] if ike else []
    words = [encryption, *(combined if encryption in COMBINED else [digest]), *([group] if group else [])]
    return "-".join(words)
