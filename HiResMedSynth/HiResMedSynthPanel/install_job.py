"""The steps of an installation, for the thread: check the folder, make the environment, fill it, try it."""

import subprocess

from slicer.i18n import tr as _

from HiResMedSynthPanel import installation
from HiResMedSynthPanel.wheel_folder import WheelFolder

ASK_S, PROBE_S = 30, 60.0


def version_of(interpreter, base):
    """Major and minor version of an interpreter, as "3.12"; InstallationError where it doesn't run."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [str(interpreter), "-c", code],
            env=installation.child_environment(None, base),
            capture_output=True,
            text=True,
            timeout=ASK_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        what = _("this Python doesn't run ({why})").format(why=type(error).__name__)
        remedy = _("Choose another one in the field Python.")
        raise installation.InstallationError(what, where=interpreter, remedy=remedy) from error
    return answer.stdout.strip()


def check_folder(folder, interpreter, base):
    """(wheels that are needed, names of what is missing) of a folder, for the Python that will install them."""
    return WheelFolder.read(folder, version_of(interpreter, base)).select()


def install(ticket, report, *, interpreter, folder, environment, wheels, library_folder, base):
    """Makes the environment anew and tries it; `report(done, total, message)`.

    `interpreter` must not be the environment's own: that goes first.
    """
    if environment.exists():
        installation.remove(environment)
    installation.prepare(environment, wheels)
    commands = installation.install_commands(interpreter, folder, environment, base)
    for number, command in enumerate(commands):
        report(number, len(commands), command.purpose + "...")
        _run(command, ticket)
    report(len(commands), len(commands), _("trying it..."))
    answer = installation.probe(installation.environment_python(environment), library_folder, PROBE_S, base)
    installation.complete(environment, answer)
    return answer


def _run(command, ticket):
    """Runs one command; cancelling kills it."""
    process = subprocess.Popen(
        command.arguments,
        env=command.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    while True:
        try:
            output, _nothing = process.communicate(timeout=0.3)
            break
        except subprocess.TimeoutExpired:
            if ticket.cancelled.is_set():
                process.kill()
                process.communicate()
                what, remedy = _("the installation was cancelled"), _("What was begun goes at the next installation.")
                raise installation.InstallationError(what, remedy=remedy) from None
    if process.returncode != 0:
        raise installation.explain(output, process.returncode)
