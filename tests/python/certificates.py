"""Client certificates that a server must refuse, made for one run in a temporary directory."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from quiver_client import Credentials

_DAY = datetime.timedelta(days=1)
_Key = ec.EllipticCurvePrivateKey


def identity(certificate: str) -> tuple[str, str]:
    """Kind (``device``, ``gateway``, ``operator``) and id that a certificate file speaks for."""
    leaf = x509.load_pem_x509_certificates(Path(certificate).read_bytes())[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    scheme, namespace, kind, name = uri.split(":", 3)
    if (scheme, namespace) != ("urn", "quiver"):
        raise ValueError(f"{certificate} holds {uri}, no urn:quiver:")
    return kind, name


class Authority:
    """A certificate authority: one of its own, or that of a server whose key is at hand."""

    def __init__(self, certificate: x509.Certificate, key: _Key) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def load(cls, certificate: str, key: str) -> Authority:
        """The authority in two PEM files."""
        loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
        if not isinstance(loaded, _Key):
            raise ValueError(f"{key} is no key on an elliptic curve")
        return cls(x509.load_pem_x509_certificate(Path(certificate).read_bytes()), loaded)

    @classmethod
    def make(cls, subject: x509.Name | None = None) -> Authority:
        """A new authority that no server trusts."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a stranger's CA")])
        builder = _builder(name, name, key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    def issue(
        self,
        directory: Path,
        authority_file: str,
        uris: Iterable[str],
        *,
        name: str,
        expired: bool = False,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> Credentials:
        """A client certificate. ``authority_file`` is what the client verifies the server with."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, self.certificate.subject, key, expired=expired)
        return _finish(builder, uris, usage, key, self._key, directory / name, authority_file)


def self_signed(directory: Path, authority_file: str, uri: str) -> Credentials:
    """A client certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self-signed")])
    usage = ExtendedKeyUsageOID.CLIENT_AUTH
    builder = _builder(subject, subject, key)
    return _finish(builder, [uri], usage, key, key, directory / "self-signed", authority_file)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: _Key, *, expired: bool = False
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    begin, end = (now - 30 * _DAY, now - _DAY) if expired else (now - _DAY, now + _DAY)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _finish(
    builder: x509.CertificateBuilder,
    uris: Iterable[str],
    usage: x509.ObjectIdentifier,
    key: _Key,
    signer: _Key,
    path: Path,
    authority_file: str,
) -> Credentials:
    names = [x509.UniformResourceIdentifier(uri) for uri in uris]
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    path.with_suffix(".pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Credentials(authority_file, str(path.with_suffix(".pem")), str(path.with_suffix(".key")))
