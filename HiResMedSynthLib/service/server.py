"""Runs the backend: loopback only unless token and TLS are given; says its port; ends when its parent's pipe closes."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.service.guards import LARGEST_HEADERS, Guards
from HiResMedSynthLib.service.job_folder import remove_folders_in_use, remove_folders_left
from HiResMedSynthLib.service.protocol import TOKEN_VARIABLE

SHORTEST_TOKEN = 32
GRACE_S = 1.0  # to end in good order; the panel kills after 1.5


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How the backend listens.

    Args:
        host: address; anything but loopback needs `tls_certificate` and `tls_key`.
        port: 0 takes a free one.
        token: the secret, at least 32 characters.
        memory_bytes: budget for loaded images.
        device: where backgrounds are made: "cpu", "cuda", or "auto" for a GPU where there is one.
        end_with_stdin: end when standard input closes (the parent has gone).
    """

    host: str = "127.0.0.1"
    port: int = 0
    token: str
    memory_bytes: int
    device: str = "auto"
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    end_with_stdin: bool = False

    def __post_init__(self) -> None:
        if len(self.token) < SHORTEST_TOKEN or not self.token.isascii() or not self.token.isprintable():
            raise SettingsError(
                f"the backend needs a secret of at least {SHORTEST_TOKEN} characters",
                remedy=f"Put a random one into the environment variable {TOKEN_VARIABLE}; never on a command line.",
            )
        try:
            loopback = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            raise SettingsError(
                f"'{self.host}' is no address", remedy="Give an IP address, 127.0.0.1 for this machine."
            ) from None
        if not loopback and (self.tls_certificate is None or self.tls_key is None):
            raise SettingsError(
                "beyond this machine the backend listens only with TLS",
                remedy="Give --tls-certificate and --tls-key, or listen on 127.0.0.1.",
            )
        for file in (self.tls_certificate, self.tls_key):
            if file is not None and not file.is_file():
                raise SettingsError("there is no such file", where=file, remedy="Check the path.")


def take_token() -> str:
    """The secret from the environment, removed there so that children don't inherit it; "" if there is none."""
    return os.environ.pop(TOKEN_VARIABLE, "")


def serve(settings: ServerSettings) -> None:
    """Listens until it is told to stop; the first line on standard output is {"port": N}."""
    from HiResMedSynthLib.service.app import make_app

    remove_folders_left()
    with listen(settings.host, settings.port) as listener:
        port = listener.getsockname()[1]
        name = f"[{settings.host}]" if ":" in settings.host else settings.host
        here = ipaddress.ip_address(settings.host).is_loopback
        scheme = "http" if settings.tls_certificate is None else "https"
        app = make_app(
            token=settings.token,
            hosts=frozenset({name, "localhost"}) if here else None,
            origin=f"{scheme}://{name}:{port}",
            memory_bytes=settings.memory_bytes,
            device=settings.device,
        )
        sys.stdout.write(json.dumps({"port": port}) + "\n")
        sys.stdout.flush()
        run_app(
            app,
            listener,
            end_with_stdin=settings.end_with_stdin,
            tls_certificate=settings.tls_certificate,
            tls_key=settings.tls_key,
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket on which clients are heard from now on, if not yet answered; port 0 takes a free one.

    Raises:
        SettingsError: the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off for sockets that name TCP only: without it each answer takes 40 ms longer
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"port {port} can't be listened on ({error.strerror})", remedy="Give another --port, or 0."
        ) from error
    return listener


def run_app(
    app: Guards,
    listener: socket.socket,
    *,
    end_with_stdin: bool,
    tls_certificate: Path | None = None,
    tls_key: Path | None = None,
) -> None:
    """Answers requests until the process is told to end, or standard input closes where that is asked for."""
    import uvicorn

    from HiResMedSynthLib.service.connections import MOST_WAITING, BoundedWait

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        h11_max_incomplete_event_size=LARGEST_HEADERS,
        http=BoundedWait,
        ws="none",
        timeout_keep_alive=30,
        limit_concurrency=2 * MOST_WAITING,
        ssl_certfile=tls_certificate,
        ssl_keyfile=tls_key,
    )
    server = uvicorn.Server(config)
    if end_with_stdin:
        threading.Thread(target=_end_with_stdin, args=(server,), daemon=True).start()
    asyncio.run(server.serve(sockets=[listener]))


def _end_with_stdin(server: object) -> None:
    """Ends the server when the parent's pipe closes; at once if it then hangs in a computation."""
    while sys.stdin.buffer.read(4096):
        pass
    server.should_exit = True  # type: ignore[attr-defined]
    threading.Event().wait(GRACE_S)
    remove_folders_in_use()
    os._exit(0)
