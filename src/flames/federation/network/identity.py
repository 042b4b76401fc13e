"""Keys, certificates and requests on disk: what a kit's identity is, and whether it can be used.

A site may make its private key itself, with `make_request`: only the request goes to the
consortium. What comes back is a kit without a key, and `join_kit` puts both together.
"""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from flames.errors import FlamesError
from flames.federation.network.kits import Kit
from flames.files import save_text

KEY_BITS = 2048


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate, in hexadecimal."""
    content = certificate.public_bytes(serialization.Encoding.DER)
    return hashlib.sha256(content).hexdigest()


def common_name(certificate: x509.Certificate) -> str:
    """Return the one name that a certificate is for; empty where it names nobody or several."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def make_request(name: str, folder: Path) -> tuple[Path, Path]:
    """Make a private key and a certificate request in ``folder``; return their paths.

    Raises:
        FlamesError: A key of that name is there, or the folder cannot be written.
    """
    key_path, request_path = folder / f"{name}.key", folder / f"{name}.csr"
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    signed = request.sign(key, hashes.SHA256())
    _write_key(key_path, _as_pem(key))
    save_text(request_path, signed.public_bytes(serialization.Encoding.PEM).decode())
    return key_path, request_path


def join_kit(kit: Kit, key_path: Path) -> None:
    """Put a site's own key into the kit that was made for it.

    Raises:
        FlamesError: The key cannot be read, is another one's, or the kit holds one.
    """
    try:
        content = key_path.read_bytes()
        key = serialization.load_pem_private_key(content, None)
    except (OSError, ValueError, TypeError) as error:
        raise FlamesError(
            f"cannot read the private key {key_path}: {error}",
            "name the key that 'flames site request' made",
        ) from error
    if _public(key) != _public(load_certificate(kit)):
        raise FlamesError(
            f"{key_path} is not the key of the certificate in {kit.path}",
            "name the key whose request the consortium signed",
        )
    if not kit.key.exists():
        _write_key(kit.key, content)
        return
    if kit.key.read_bytes() != content:
        raise FlamesError(f"{kit.key} is another key", "remove it, then join again")


def load_certificate(kit: Kit) -> x509.Certificate:
    """Return the kit's certificate.

    Raises:
        FlamesError: It is missing or damaged.
    """
    try:
        return x509.load_pem_x509_certificate(kit.certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise FlamesError(
            f"cannot read the certificate {kit.certificate}: {error}",
            "ask the consortium for the kit again",
        ) from error


def check_identity(kit: Kit) -> None:
    """Look whether the kit can prove who it is.

    Raises:
        FlamesError: It has no key, a key that is not its certificate's, or an expired certificate.
    """
    certificate = load_certificate(kit)
    ends = certificate.not_valid_after_utc
    if ends <= datetime.now(UTC):
        raise FlamesError(
            f"the certificate of {kit.name} expired on {ends:%Y-%m-%d %H:%M} UTC",
            f"ask the consortium for 'flames consortium renew … {kit.name}'",
        )
    try:
        key = serialization.load_pem_private_key(kit.key.read_bytes(), None)
    except FileNotFoundError as error:
        raise FlamesError(
            f"the kit {kit.path} holds no private key",
            f"put the site's own into it: flames site join --kit {kit.path} --key FILE",
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise FlamesError(f"cannot read {kit.key}: {error}", "ask for a renewed kit") from error
    if _public(key) != _public(certificate):
        raise FlamesError(
            f"{kit.key} is not the key of the certificate beside it", "ask for a renewed kit"
        )


def _public(holder: object) -> bytes:
    key = holder.public_key()  # type: ignore[attr-defined]
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_bytes(serialization.Encoding.DER, form))


def _as_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write_key(path: Path, content: bytes) -> None:
    """Write a private key that only its owner can read, and never over another."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise FlamesError(f"{path} exists already", "keep it, or name another folder") from error
    except OSError as error:
        raise FlamesError(f"cannot write {path}: {error.strerror}", "name a folder") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
