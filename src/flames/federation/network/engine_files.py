"""The engine's local settings, written into a kit each time it starts.

They say what the engine may do here: which components a job may name (only FLAMES' own), who has
which right, where jobs are kept, how long it waits. Jobs can bring no code.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flames.federation.network.kits import Kit
from flames.federation.network.limits import ENGINE_BYTES, LIMIT
from flames.files import save_json

CONTROLLER = "flames.federation.network.controller.RoundController"
EXECUTOR = "flames.federation.network.executor.SiteExecutor"
KEEPER = "flames.federation.network.keeper.RunKeeper"
LAUNCHER = "flames.federation.network.launcher.WarmLauncher"
EXIT = "flames.federation.network.engine_log.Exit"
HEARTBEAT_SECONDS = 5.0
DEAD_AFTER_SECONDS = 30

OWN_RUNS = "n:submitter"
PERMISSIONS = {
    "project_admin": {
        "submit_job": "any",
        "clone_job": OWN_RUNS,
        "manage_job": "any",
        "download_job": "any",
        "view": "any",
        "operate": "none",
        "shell_commands": "none",
        "byoc": "none",
    },
    "lead": {
        "submit_job": "any",
        "clone_job": OWN_RUNS,
        "manage_job": OWN_RUNS,
        "download_job": OWN_RUNS,
        "view": "any",
        "operate": "none",
        "shell_commands": "none",
        "byoc": "none",
    },
    "member": {"view": "any"},
}

ENVIRONMENT = {
    "NVFLARE_CLIENT_OUTCOME_WAIT_TIMEOUT": "5",
    "NVFLARE_DEAD_CLIENT_GRACE_PERIOD": "1000000",
    "NVFLARE_ENABLE_JEMALLOC_PRELOAD": "false",
    LIMIT: str(ENGINE_BYTES),
}
"""How long the server's engine waits for a job's end at sites that died, and never gives up; how
large a message it takes in."""


def write_engine_files(kit: Kit) -> None:
    """Write the settings of a server's or a site's engine."""
    local = kit.path / "local"
    resources = _server(kit) if kit.kind == "server" else _site(kit)
    save_json(local / "resources.json", resources)
    save_json(local / "authorization.json", {"format_version": "1.0", "permissions": PERMISSIONS})
    save_json(local / "log_config.json", _logging(kit))


def engine_environment(kit: Kit) -> dict[str, str]:
    """Return the environment of an engine process."""
    own = {"NVFL_JOB_STORE_ROOT": str(kit.path / "jobs"), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **ENVIRONMENT, **own}


def _server(kit: Kit) -> dict[str, Any]:
    storage = "nvflare.app_common.storages.filesystem_storage.FilesystemStorage"
    return {
        "format_version": 2,
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": [CONTROLLER],
        "servers": [
            {
                "admin_storage": "transfer",
                "max_num_clients": 1000,
                "heart_beat_timeout": DEAD_AFTER_SECONDS,
                "download_job_url": "",
                "admin_timeout": 20.0,
            }
        ],
        "snapshot_persistor": {
            "path": "nvflare.app_common.state_persistors.storage_state_persistor."
            "StorageStatePersistor",
            "args": {
                "uri_root": "/",
                "storage": {
                    "path": storage,
                    "args": {"root_dir": str(kit.path / "snapshots"), "uri_root": "/"},
                },
            },
        },
        "components": [
            {
                "id": "job_scheduler",
                "path": "nvflare.app_common.job_schedulers.job_scheduler.DefaultJobScheduler",
                "args": {
                    "max_jobs": 16,
                    "max_schedule_count": 1_000_000_000,
                    "min_schedule_interval": 1.0,
                    "max_schedule_interval": 5.0,
                },
            },
            {
                "id": "job_manager",
                "path": "nvflare.apis.impl.job_def_manager.SimpleJobDefManager",
                "args": {"uri_root": str(kit.path / "jobs"), "job_store_id": "job_store"},
            },
            {"id": "job_store", "path": storage},
            _launcher("server"),
            {"id": "keeper", "path": KEEPER, "args": {}},
        ],
    }


def _site(kit: Kit) -> dict[str, Any]:
    return {
        "format_version": 2,
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": [EXECUTOR],
        "allow_log_streaming": False,
        "client": {"retry_timeout": 30, "compression": "None"},
        "components": [
            {
                "id": "resource_manager",
                "path": "nvflare.app_common.resource_managers.gpu_resource_manager."
                "GPUResourceManager",
                "args": {"num_of_gpus": 0, "mem_per_gpu_in_GiB": 0, "expiration_period": 300},
            },
            {
                "id": "resource_consumer",
                "path": "nvflare.app_common.resource_consumers.gpu_resource_consumer."
                "GPUResourceConsumer",
                "args": {},
            },
            _launcher("client"),
            {"id": "exit", "path": EXIT, "args": {"path": str(kit.events)}},
        ],
    }


def _launcher(side: str) -> dict[str, Any]:
    return {"id": "process_launcher", "path": LAUNCHER, "args": {"side": side}}


def _logging(kit: Kit) -> dict[str, Any]:
    line = "%(asctime)s %(levelname)s %(name)s %(message)s"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": "nvflare.fuel.utils.log_utils.BaseFormatter", "fmt": line}},
        "handlers": {
            "file": {
                "class": "logging.handlers.RotatingFileHandler",
                "level": "INFO",
                "formatter": "line",
                "filename": "log.txt",
                "mode": "a",
                "maxBytes": 20_000_000,
                "backupCount": 5,
            },
            "journal": {
                "()": "flames.federation.network.engine_log.JournalHandler",
                "path": str(kit.events),
            },
        },
        "loggers": {"root": {"level": "INFO", "handlers": ["file", "journal"]}},
    }


def job_folder(path: Path, name: str, sites: list[str] | None, files: dict[str, str]) -> None:
    """Write the engine's job of a run: which components, for whom, and the run's configuration.

    Args:
        path: A new folder.
        name: Of the run.
        sites: Who takes part; None for everybody who is there.
        files: Contents by name, put beside the engine's configuration.
    """
    app = path / "app" / "config"
    targets = ["@ALL"] if sites is None else ["server", *sites]
    save_json(
        path / "meta.json",
        {
            "name": name,
            "resource_spec": {},
            "min_clients": 1,
            "mandatory_clients": [],
            "deploy_map": {"app": targets},
        },
    )
    save_json(
        app / "config_fed_server.json",
        {
            "format_version": 2,
            "task_data_filters": [],
            "task_result_filters": [],
            "components": [],
            "workflows": [{"id": "rounds", "path": CONTROLLER, "args": {}}],
        },
    )
    save_json(
        app / "config_fed_client.json",
        {
            "format_version": 2,
            "task_data_filters": [],
            "task_result_filters": [],
            "components": [],
            "executors": [{"tasks": ["flames"], "executor": {"path": EXECUTOR, "args": {}}}],
        },
    )
    for file, content in files.items():
        (app / file).write_text(content, encoding="utf-8")
