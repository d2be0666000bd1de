"""A certificate authority, and what it issues."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)

DAY = datetime.timedelta(days=1)


def dns(*names: str) -> list[x509.GeneralName]:
    """Alternative names of hosts."""
    return [x509.DNSName(name) for name in names]


def uri(*names: str) -> list[x509.GeneralName]:
    """Alternative names of workloads."""
    return [x509.UniformResourceIdentifier(name) for name in names]


LOOPBACK: list[x509.GeneralName] = [*dns("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Put both in files, whatever was there; return the certificate's and the key's."""
        directory.mkdir(exist_ok=True)
        certificate_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
        for path, content in ((certificate_file, self.certificate), (key_file, self.key)):
            beside = path.with_suffix(".new")
            beside.write_bytes(content)
            beside.rename(path)
        return certificate_file, key_file


def _new_key() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP256R1())


@dataclass(frozen=True)
class Authority:
    """Issues certificates that its own certificate vouches for."""

    name: str = "tests"
    _key: EllipticCurvePrivateKey = field(default_factory=_new_key)

    @cached_property
    def certificate(self) -> bytes:
        """Its own certificate, as PEM."""
        return _signed(
            self.name, self._key, issuer=self, alternative=[], expires_in=DAY, is_authority=True
        )

    def issue(
        self,
        common_name: str,
        alternative: Sequence[x509.GeneralName] = (),
        *,
        expires_in: datetime.timedelta = DAY,
    ) -> Issued:
        """Issue a certificate."""
        key = _new_key()
        certificate = _signed(
            common_name, key, issuer=self, alternative=alternative, expires_in=expires_in
        )
        return Issued(
            certificate,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


def _signed(
    common_name: str,
    key: EllipticCurvePrivateKey,
    *,
    issuer: Authority,
    alternative: Sequence[x509.GeneralName],
    expires_in: datetime.timedelta,
    is_authority: bool = False,
) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(common_name))
        .issuer_name(_named(issuer.name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * DAY)
        .not_valid_after(now + expires_in)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if alternative:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    certificate = builder.sign(issuer._key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM)


def _named(common_name: str) -> x509.Name:
    if not common_name:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
