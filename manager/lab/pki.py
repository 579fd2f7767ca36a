"""A certificate authority for one lab, and one certificate that every node and client of it uses."""

# ruff: noqa: ASYNC240 - the files are few and small, and this loop serves nobody else

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from manager.lab.processes import run

VALID_DAYS = "30"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")

# QEMU looks for other names than libvirt does.
_QEMU_NAMES = {
    "ca-cert.pem": "cacert.pem",
    "server-cert.pem": "servercert.pem",
    "server-key.pem": "serverkey.pem",
    "client-cert.pem": "clientcert.pem",
    "client-key.pem": "clientkey.pem",
}


async def make(folder: Path, names: Sequence[str], addresses: Sequence[str]) -> None:
    """Write a CA and a certificate for all names and addresses, in files as libvirt and QEMU name them.

    Source: https://libvirt.org/kbase/tlscerts.html (file names and key usages).
    """
    folder.mkdir(mode=0o700)
    alternatives = ",".join([f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses])
    (folder / "node.ext").write_text(
        f"subjectAltName={alternatives}\n"
        "keyUsage=critical,digitalSignature,keyEncipherment\n"
        "extendedKeyUsage=serverAuth,clientAuth\n"
        "basicConstraints=CA:FALSE\n",
    )
    authority = ["openssl", "req", "-x509", *_NEW_KEY, "-days", VALID_DAYS, "-subj", "/CN=Muster lab CA"]
    authority += [
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
    ]
    await run([*authority, "-keyout", "cakey.pem", "-out", "cacert.pem"], cwd=folder)
    request = ["openssl", "req", *_NEW_KEY, "-subj", "/CN=Muster lab node"]
    await run([*request, "-keyout", "serverkey.pem", "-out", "node.csr"], cwd=folder)
    sign = [
        "openssl",
        "x509",
        "-req",
        "-in",
        "node.csr",
        "-CA",
        "cacert.pem",
        "-CAkey",
        "cakey.pem",
        "-CAcreateserial",
    ]
    await run([*sign, "-days", VALID_DAYS, "-extfile", "node.ext", "-out", "servercert.pem"], cwd=folder)
    for kind in ("cert.pem", "key.pem"):
        (folder / f"client{kind}").write_bytes((folder / f"server{kind}").read_bytes())
    for link, target in _QEMU_NAMES.items():
        (folder / link).symlink_to(target)
    for key in folder.glob("*key.pem"):
        if not key.is_symlink():
            key.chmod(0o600)
