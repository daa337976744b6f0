"""Serves a reader study to browsers on this machine, and tells each reader's address with a code that works once."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from HiResMedSynthLib.evaluation.reader_study import open_study
from HiResMedSynthLib.evaluation.study_answers import AnswersFile, read_answers
from HiResMedSynthLib.service.server import listen, run_app

HOST = "127.0.0.1"


def serve_study(folder: Path, *, port: int = 0, as_json: bool = False, end_with_stdin: bool = False) -> None:
    """Listens until it is told to stop. Prints what a person needs, or JSON lines.

    A JSON line has reader, url, answered and trials.

    Raises:
        StudyError: the study can't be opened, was changed, or is being served already.
        SettingsError: the port is taken.
    """
    from HiResMedSynthLib.service.study import make_study_app
    from HiResMedSynthLib.service.study_guards import Sessions

    study = open_study(folder)
    study.check_pictures()
    given = read_answers(study)
    with AnswersFile(study) as answers, listen(HOST, port) as listener:
        host = f"{HOST}:{listener.getsockname()[1]}"
        if not as_json:
            _say(f"Shows {folder} until Ctrl-C. The code in an address works once; then a new one is printed.")
            for number in given.cut_off:
                _say(f"note        line {number} of the answers was cut off; its trial is asked again")

        def tell(reader: str, code: str) -> None:
            trials = len(study.trials(reader))
            done = answers.count(reader)
            shown = "-".join(code[k : k + 4] for k in range(0, len(code), 4))
            url = f"http://{host}/#{shown}"
            if as_json:
                _say(json.dumps({"reader": reader, "url": url, "answered": done, "trials": trials}))
            else:
                _say(f"{reader:<11} {url}  ({done} of {trials} answered)")

        sessions = Sessions(study.design.readers, tell)
        with contextlib.suppress(KeyboardInterrupt):  # the usual end
            run_app(make_study_app(study, answers, sessions, host), listener, end_with_stdin=end_with_stdin)
    if not as_json:
        _say(f"The study is no longer shown. All answers are kept in {study.answers_path}.")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
