"""The service's certificate: looked at before it starts, and read again when it was renewed.

Certificates last for weeks, and what renews them tells nobody. A webhook that showed the old one would be
passed over without a word once that has expired.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from planner_service.settings import InvalidSetting, Settings, variable

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0


def require_certificate(settings: Settings) -> None:
    """Raise InvalidSetting where the certificate and its key cannot be read, or are none of each other."""
    if not settings.tls_certificate_file:
        return
    for name in ("tls_certificate_file", "tls_key_file"):
        path = Path(getattr(settings, name))
        try:
            path.read_bytes()
        except OSError as error:
            raise InvalidSetting(f"{variable(name)}={path} cannot be read: {error.strerror}") from error
    chain, key = settings.tls_certificate_file, settings.tls_key_file
    try:
        # Without a password, an encrypted key would be asked for at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, password="")
    except ssl.SSLError as error:
        told = f"{variable('tls_certificate_file')}={chain} and {variable('tls_key_file')}={key}"
        reason = f"are no certificate and its unencrypted key in PEM: {error.reason}"
        raise InvalidSetting(f"{told} {reason}") from error


async def follow_certificate(context: ssl.SSLContext, chain: Path, key: Path) -> None:
    """Have `context` show whoever connects the files as they are then, until cancelled. While they are no
    certificate and its key, it goes on with those that were.
    """
    shown = _stamps(chain, key)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        found = _stamps(chain, key)
        if found == shown:
            continue
        try:
            # First into another one: what fails halfway leaves a certificate without its key.
            for each in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):
                each.load_cert_chain(chain, key, password="")
        except OSError as error:  # half written, perhaps
            log.warning("certificate not read again: %s", error, extra={"action": "certificate_not_read"})
        else:
            shown = found
            log.info("certificate read again", extra={"action": "certificate_read"})


def _stamps(*files: Path) -> list[tuple[int, int] | None]:
    """What differs when a file was written, or another one put in its place."""
    return [_stamp(file) for file in files]


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
