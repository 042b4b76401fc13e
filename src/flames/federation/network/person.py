"""A person's connection to the server of the consortium, by the engine's own session."""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Any

from nvflare.apis.fl_exception import FLCommunicationError
from nvflare.fuel.flare_api.api_spec import AuthenticationError, NoConnection, SessionClosed
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from flames.errors import FlamesError
from flames.federation.network.identity import check_identity
from flames.federation.network.kits import Kit
from flames.files import writing

CONNECT_SECONDS = 15.0
ANSWER_SECONDS = 30.0


class Unreachable(FlamesError):
    """The server gives no answer now; it may later."""

    def __init__(self, kit: Kit, why: str) -> None:
        """Say which server."""
        super().__init__(
            f"the server {kit.server} gives no answer: {why}",
            "start it with 'flames server start', or look at the line to it",
        )


class Person:
    """Somebody with a kit, connected while inside ``with``."""

    def __init__(self, kit: Kit) -> None:
        """Connect on entering."""
        self.kit = kit
        self.session: Session | None = None

    def __enter__(self) -> Person:
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def connect(self) -> None:
        """Connect, anew where it was connected before.

        Raises:
            FlamesError: The server gives no answer, or does not take this person in.
        """
        self.close()
        check_identity(self.kit)
        logging.getLogger("nvflare").setLevel(logging.CRITICAL)
        logging.getLogger().setLevel(logging.CRITICAL)
        try:
            with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
                self.session = new_secure_session(
                    self.kit.name,
                    str(self.kit.path),
                    timeout=CONNECT_SECONDS,
                    command_timeout=ANSWER_SECONDS,
                    auto_login_max_tries=1,
                )
        except FLCommunicationError as error:
            # The engine hides the server's words under a second error of its own.
            why = str(error.__context__ or error).removeprefix("error:client_registration").strip()
            raise FlamesError(
                f"the server does not take {self.kit.name} in: {why}", "ask the consortium"
            ) from error
        except AuthenticationError as error:
            raise FlamesError(
                f"the server does not take {self.kit.name} in: {error}",
                "ask the consortium for a renewed kit",
            ) from error
        except (NoConnection, SessionClosed, OSError, RuntimeError) as error:
            raise Unreachable(self.kit, str(error) or type(error).__name__) from error

    def close(self) -> None:
        """Leave."""
        if self.session is not None:
            try:
                self.session.close()
            except Exception:
                logging.getLogger(__name__).debug("leaving failed", exc_info=True)
            self.session = None

    def _connected(self) -> Session:
        """Return the session; without one, as where connecting anew failed, nothing is asked."""
        if self.session is None:
            raise Unreachable(self.kit, "there is no connection")
        return self.session

    def ask(self, command: str, *words: str) -> dict[str, Any]:
        """Return the server's answer to one of FLAMES' commands.

        Raises:
            FlamesError: The server gives no answer, or refuses.
        """
        session = self._connected()
        try:
            reply = session.api.server_execute(" ".join([f"flames_{command}", *words]))
        except Exception as error:
            raise Unreachable(self.kit, str(error) or type(error).__name__) from error
        tables = [
            item.get("data")
            for item in reply.get("data", [])
            if isinstance(item, dict) and item.get("type") == "dict"
        ]
        if not tables or not isinstance(tables[0], dict):
            raise Unreachable(self.kit, str(reply.get("details") or reply.get("status")))
        answer: dict[str, Any] = tables[0]
        if "error" in answer:
            raise FlamesError(answer["error"], answer.get("remedy", ""))
        return answer

    def submit(self, folder: Path) -> str:
        """Return the number of the job that was handed in, signed by this person.

        Raises:
            FlamesError: It was not taken.
        """
        session = self._connected()
        try:
            return str(session.submit_job(str(folder)))
        except (NoConnection, SessionClosed) as error:
            raise Unreachable(self.kit, str(error)) from error
        except Exception as error:
            raise FlamesError(
                f"the server did not take the run: {error}",
                "only people with the role lead or admin may start runs",
            ) from error

    def fetch_finished(self, job: str, dest: Path) -> None:
        """Copy the finished run folder of ``job`` into ``dest``.

        Raises:
            FlamesError: It cannot be had.
            NotWritten: The disk here is full; it can be tried again.
        """
        session = self._connected()
        with writing(dest), tempfile.TemporaryDirectory(dir=dest) as scratch:
            try:
                place = Path(str(session.download_job_result(job, scratch)))
            except Exception as error:
                raise FlamesError(
                    f"the finished run could not be fetched: {error}",
                    "try again with 'flames attach'; where the server was pruned since, its "
                    "runs/ still holds the results",
                ) from error
            found = sorted(place.rglob("finished/config.toml"))
            if not found:
                raise FlamesError(
                    f"job {job} holds no finished run", "try again with 'flames attach'"
                )
            shutil.copytree(found[0].parent, dest, dirs_exist_ok=True)
