"""``python -m flames.federation.network.engine_process SIDE KIT PARENT``: one engine process.

It ends when its parent does: whoever kills ``flames server start`` leaves nothing running.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from pathlib import Path

from flames.federation.network.engine_files import HEARTBEAT_SECONDS


def main() -> None:
    """Run the engine's process of a server or a site until it is stopped."""
    side, kit, parent, name = sys.argv[1:5]
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    from nvflare.fuel.f3.mpm import MainProcessMonitor

    if side == "server":
        from nvflare.private.fed.app.server import server_train as engine

        from flames.federation.network.door import hang_door
        from flames.federation.network.kits import Kit

        hang_door(Kit.open(Path(kit), "server"))
        args = argparse.Namespace(
            workspace=kit,
            fed_server="fed_server.json",
            set=["secure_train=true", "org=consortium", "config_folder=config"],
        )
    else:
        from nvflare.private.fed.app.client import client_train as engine

        from flames.federation.network.connections import hear_refusals
        from flames.federation.network.journal import Journal
        from flames.federation.network.kits import Kit

        hear_refusals(Journal(Kit.open(Path(kit), "site").events))
        args = argparse.Namespace(
            workspace=kit,
            fed_client="fed_client.json",
            local_rank=0,
            set=[
                "secure_train=true",
                f"uid={name}",
                "org=consortium",
                "config_folder=config",
                f"heart_beat_interval={HEARTBEAT_SECONDS}",
            ],
        )
    sys.exit(MainProcessMonitor.run(main_func=engine.main, run_dir=kit, args=args))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.3)
    os._exit(1)


if __name__ == "__main__":
    main()
