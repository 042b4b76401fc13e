"""Kits from a consortium, by NVIDIA FLARE's provisioning: authority, certificates, engine files.

The authority's key stays in the consortium's folder, ``authority/``, and is all that is secret
there: private keys of kits are written into the kits and nowhere else. A site that sent a
certificate request keeps its key: its kit comes without one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from nvflare.lighter.constants import CtxKey
from nvflare.lighter.ctx import ProvisionContext
from nvflare.lighter.entity import Participant, Project
from nvflare.lighter.impl.cert import CertBuilder
from nvflare.lighter.impl.static_file import StaticFileBuilder
from nvflare.lighter.impl.workspace import WorkspaceBuilder
from nvflare.lighter.provisioner import Provisioner
from nvflare.lighter.utils import serialize_cert, serialize_pri_key

from flames.errors import FlamesError
from flames.federation.network.consortium import Consortium, SiteEntry
from flames.federation.network.identity import KEY_BITS, fingerprint
from flames.federation.network.kits import Kind, Kit

AUTHORITY_DAYS = 3650
ROLES = {"admin": "project_admin", "lead": "lead", "member": "member"}


@dataclass(frozen=True)
class Issued:
    """A new certificate, as the record keeps it."""

    certificate: str
    """Its SHA-256, in hexadecimal."""
    expires: str
    """When it ends, in UTC."""


def issue_kits(
    consortium: Consortium, folder: Path, wanted: Iterable[str], kits: Mapping[str, Path]
) -> dict[str, Issued]:
    """Write kits for the ``wanted`` names and return their certificates.

    Args:
        consortium: Everybody; the server is wanted as ``"server"``.
        folder: The consortium's folder, with ``authority/`` from before, or to be made.
        wanted: Names to issue a certificate for; nobody else's kit is touched.
        kits: Where the kit of each wanted name goes.

    Raises:
        FlamesError: A certificate request is bad, or the engine's provisioning failed.
    """
    names = set(wanted)
    requests = {
        site.name: _read_request(site)
        for site in consortium.sites
        if site.request is not None and site.name in names
    }
    certificates = _Certificates(names, requests, consortium.valid_days)
    complaints = _Complaints()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        work = Path(scratch) / consortium.name
        state = folder / "authority"
        if state.exists():
            shutil.copytree(state, work / "state")
        context = Provisioner(
            scratch,
            [
                WorkspaceBuilder(["master_template.yml"]),
                StaticFileBuilder(config_folder="config", scheme="tcp", require_signed_jobs=True),
                certificates,
            ],
        ).provision(_project(consortium), logger=complaints)
        if context.get(CtxKey.BUILD_ERROR):
            raise FlamesError(
                f"the kits could not be made: {'; '.join(complaints.errors) or 'unknown error'}",
                "correct consortium.toml",
            )
        made = Path(str(context.get(CtxKey.CURRENT_PROD_DIR)))
        _keep(work / "state", state)
        for name in certificates.issued:
            _move_kit(consortium, name, made, kits[name])
    return certificates.issued


def _keep(made: Path, state: Path) -> None:
    """Copy the authority's files, which hold its key: nobody else may read them at any time."""
    for path in (made, *made.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    state.mkdir(mode=0o700, exist_ok=True)
    state.chmod(0o700)
    shutil.copytree(made, state, dirs_exist_ok=True)


class _Certificates(CertBuilder):
    """The engine's certificates, for wanted names only, and without keeping their private keys."""

    def __init__(
        self, wanted: set[str], requests: Mapping[str, x509.CertificateSigningRequest], days: int
    ) -> None:
        super().__init__(root_valid_days=AUTHORITY_DAYS)
        self.wanted = wanted
        self.requests = requests
        self.days = days
        self.issued: dict[str, Issued] = {}

    def _build_write_cert_pair(
        self, participant: Participant, base_name: str, ctx: ProvisionContext
    ) -> None:
        name = "server" if base_name == "server" else str(participant.name)
        if name not in self.wanted:
            return
        folder = Path(ctx.get_kit_dir(participant))
        request = self.requests.get(name)
        if request is None:
            key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
            path = folder / f"{base_name}.key"
            path.touch(mode=0o600)
            path.write_bytes(serialize_pri_key(key))
            public: Any = key.public_key()
        else:
            public = request.public_key()
        certificate = self._generate_cert(
            participant.subject,
            participant.org,
            self.issuer,
            self.pri_key,
            public,
            valid_days=self.days,
            role=participant.get_prop("role"),
            server=participant if base_name == "server" else None,
        )
        (folder / f"{base_name}.crt").write_bytes(serialize_cert(certificate))
        (folder / "rootCA.pem").write_bytes(bytes(self.serialized_cert or b""))
        ends = certificate.not_valid_after_utc.isoformat(timespec="seconds")
        self.issued[name] = Issued(fingerprint(certificate), ends)


class _Complaints:
    """What the engine's provisioning says; only its errors matter."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def error(self, message: str) -> None:
        self.errors.append(message)

    def info(self, message: str) -> None:
        del message

    debug = warning = info


def _project(consortium: Consortium) -> Project:
    project = Project(consortium.name, "", props={"api_version": 3})
    ports = {"fed_learn_port": consortium.port, "admin_port": consortium.port}
    project.set_server(consortium.host, "consortium", ports)
    for site in consortium.sites:
        project.add_client(site.name, "consortium", {})
    for person in consortium.people:
        project.add_admin(person.name, "consortium", {"role": ROLES[person.role]})
    return project


def _move_kit(consortium: Consortium, name: str, made: Path, dest: Path) -> None:
    roles = {person.name: person.role for person in consortium.people}
    kind: Kind = "server" if name == "server" else "person" if name in roles else "site"
    source = made / (consortium.host if kind == "server" else name)
    for old in ("start.sh", "sub_start.sh", "stop_fl.sh", "fl_admin.sh", "system_info.ipynb"):
        (source / "startup" / old).unlink(missing_ok=True)
    for text in (source / "readme.txt", source / "startup" / "readme.txt"):
        text.unlink(missing_ok=True)
    for key in (dest / "startup").glob("*.key"):
        key.unlink()
    shutil.copytree(source, dest, dirs_exist_ok=True)
    dest.chmod(0o700)
    Kit(dest, kind, name, consortium.name, consortium.server, roles.get(name)).save()


def _read_request(site: SiteEntry) -> x509.CertificateSigningRequest:
    assert site.request is not None
    try:
        request = x509.load_pem_x509_csr(site.request.read_bytes())
    except (OSError, ValueError) as error:
        raise FlamesError(
            f"cannot read the certificate request {site.request}: {error}",
            f"ask the site for the file of 'flames site request {site.name}'",
        ) from error
    names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not request.is_signature_valid or [str(n.value) for n in names] != [site.name]:
        raise FlamesError(
            f"the certificate request {site.request} is not one of {site.name}",
            f"ask the site for the file of 'flames site request {site.name}'",
        )
    key = request.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < KEY_BITS:
        raise FlamesError(
            f"the certificate request {site.request} is not for an RSA key of {KEY_BITS} bits",
            f"ask the site for the file of 'flames site request {site.name}'",
        )
    return request
