"""`hiresmedsynth serve`: the backend of the Slicer panel."""

from __future__ import annotations

from pathlib import Path

import click

from HiResMedSynthLib.cli.options import check_device

EXAMPLES = """\b
Examples:
  HIRESMEDSYNTH_TOKEN=$(openssl rand -hex 32) hiresmedsynth serve --port 8123
  hiresmedsynth serve --host 0.0.0.0 --port 8443 --device cuda --tls-certificate gpu.crt --tls-key gpu.key
"""


@click.command("serve", epilog=EXAMPLES)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address; beyond loopback TLS is required.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0 takes a free one.")
@click.option("--memory-mib", type=click.IntRange(min=64), default=4096, show_default=True, help="For loaded images.")
@click.option(
    "--device", default="auto", show_default=True,
    help="Where backgrounds are made: cpu, cuda, or auto, a GPU where there is one.",
)  # fmt: skip
@click.option("--tls-certificate", type=click.Path(path_type=Path), help="PEM file.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="PEM file.")
@click.option("--end-with-stdin", is_flag=True, help="End when standard input closes (a parent process started it).")
def serve_command(
    host: str,
    port: int,
    memory_mib: int,
    device: str,
    tls_certificate: Path | None,
    tls_key: Path | None,
    end_with_stdin: bool,
) -> None:
    """Runs the backend that the Slicer panel talks to, on this machine only unless TLS is given.

    The secret that clients must show is read from the environment variable HIRESMEDSYNTH_TOKEN. The first line of
    output is {"port": N}.
    """
    from HiResMedSynthLib.service.server import ServerSettings, serve, take_token

    if device != "auto":
        check_device(device)
    serve(
        ServerSettings(
            host=host,
            port=port,
            token=take_token(),
            memory_bytes=memory_mib * 2**20,
            device=device,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            end_with_stdin=end_with_stdin,
        )
    )
