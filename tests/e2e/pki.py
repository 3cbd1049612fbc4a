"""Certificates and service account tokens for one run."""

import base64
import datetime
import ipaddress
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID


class Pair(NamedTuple):
    """The files of a certificate and of its key."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority that lives for a day."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject(name, ())
        self.certificate = folder / f"{name}.crt"
        basic = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate.write_bytes(self._sign(self._name, self._key, [(basic, True)]))

    def issue(self, name: str, groups: Iterable[str] = (), hosts: Iterable[str] = ()) -> Pair:
        """A certificate for a user (name and groups as Kubernetes reads them) or for a server at these hosts."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_alternative(host) for host in hosts])
        pair = Pair(self._folder / f"{name.replace(':', '_')}.crt", self._folder / f"{name.replace(':', '_')}.key")
        pair.certificate.write_bytes(self._sign(_subject(name, groups), key, [(names, False)] if hosts else []))
        write_key(pair.key, key)
        return pair

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extensions: list[tuple[x509.ExtensionType, bool]]
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(minutes=5),
            not_valid_after=now + datetime.timedelta(days=1),
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class TokenKey:
    """The key that signs service account tokens."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.private, self.public = folder / "service-accounts.key", folder / "service-accounts.pub"
        write_key(self.private, self._key)
        self.public.write_bytes(
            self._key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def sign(self, claims: dict[str, Any]) -> str:
        """A token with these claims, whether they make sense or not: the API refuses to issue an expired one."""
        parts = (json.dumps(part).encode() for part in ({"alg": "ES256", "typ": "JWT"}, claims))
        signed = ".".join(_base64url(part) for part in parts)
        r, s = utils.decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Writes the key without a password, readable by its owner only."""
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _subject(name: str, groups: Iterable[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
