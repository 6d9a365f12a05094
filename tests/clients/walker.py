"""Runs the stock `openstack` client inside this process and judges what each command did.

The commands come from the client itself (its entry points), so one that a newer client brings has no case here and fails. A command
counts as walked when every one of its cases ended well and its effect was seen: in its own answer when it reads, else in the answer of
another command.
"""
import contextlib
import io
import json
import logging
import os
import shlex
import subprocess
import sys
import time
from importlib.metadata import entry_points

SERVICES = {
    "identity": "openstack.identity.v3",
    "image": "openstack.image.v2",
    "compute": "openstack.compute.v2",
    "network": "openstack.network.v2",
    "volume": "openstack.volume.v3",
    "common": "openstack.common",
}
# Stands for what an earlier command should have made; whoever needs it is not run.
MISSING = "<missing>"


def commands():
    """Every command of the five services: {command: (service, entry point)}."""
    found = {}
    for service, group in SERVICES.items():
        for entry in entry_points(group=group):
            found[entry.name.replace("_", " ")] = (service, entry)
    return found


class Answer(dict):
    """What a command printed as JSON; a key that is not there is MISSING."""

    rows = ()
    text = ""

    def __missing__(self, key):
        return MISSING

    def find(self, **want):
        """The first row of a list that matches."""
        for row in self.rows:
            if matches(want, row):
                return Answer(row)
        return Answer()


def key_of(name):
    return str(name).strip().lower().replace(" ", "_").replace("-", "_").replace(":", "_").replace("/", "_")


def normal(value):
    if isinstance(value, dict):
        return {key_of(k): v for k, v in value.items()}
    return value


def matches(want, got):
    """Whether `got` is as `want` says: a function decides, a dict and a set want at least that, all else is equal as text."""
    if callable(want):
        try:
            return bool(want(got))
        except (TypeError, ValueError, OSError):
            return False
    if isinstance(want, dict):
        if not isinstance(got, dict):
            return False
        got = normal(got)
        return all(matches(v, got.get(key_of(k))) for k, v in want.items())
    if isinstance(want, set):
        return all(str(w) in str(got) for w in want)
    if isinstance(want, list):
        return isinstance(got, list) and sorted(map(str, want)) == sorted(map(str, got))
    return str(want).lower() == str(got).lower()


class Walk:
    def __init__(self, work):
        self.known = commands()
        self.results = {}
        self.work = work
        self.last_failure = ""
        self.took = {}
        sys.argv = ["openstack"]
        from openstackclient import shell

        self.shell = shell

    def command_of(self, argv):
        for n in range(len(argv), 0, -1):
            name = " ".join(argv[:n])
            if name in self.known:
                return name
        raise SystemExit(f"the client has no command like: {' '.join(argv)}")

    def run(self, argv, env=None, process=False):
        """(exit code, stdout, stderr) of one command, with JSON asked for where the command can."""
        from cliff.display import DisplayCommandBase

        name = self.command_of(argv)
        try:
            can = issubclass(self.known[name][1].load(), DisplayCommandBase)
        except TypeError:
            can = False
        argv = list(argv)
        if can and "--" not in argv:
            words = len(name.split())
            argv[words:words] = ["-f", "json"]
        # As options, because the client reads these variables only once in a process.
        for service in ("compute", "volume"):
            version = (env or {}).get(f"OS_{service.upper()}_API_VERSION")
            if version:
                argv[:0] = [f"--os-{service}-api-version", version]
        if process:
            client = os.path.join(os.path.dirname(sys.executable), "openstack")
            done = subprocess.run([client, *argv], capture_output=True, text=True, timeout=300, env={**os.environ, **(env or {})})
            return done.returncode, done.stdout, done.stderr
        out, err = io.StringIO(), io.StringIO()
        before = dict(os.environ)
        os.environ.update(env or {})
        for handler in list(logging.getLogger().handlers):
            logging.getLogger().removeHandler(handler)
        # A process of its own has no service client yet; one that an earlier command made here keeps that one's project and version.
        from osc_lib.clientmanager import ClientManager

        for cache in vars(ClientManager).values():
            if hasattr(cache, "_handle"):
                cache._handle = None
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    code = self.shell.OpenStackShell().run(argv)
                except SystemExit as stop:
                    code = stop.code
        except Exception as odd:  # The client's own traceback is a failure of the command, not of the walk.
            code = 1
            err.write(f"{type(odd).__name__}: {odd}")
        finally:
            os.environ.clear()
            os.environ.update(before)
        return code or 0, out.getvalue(), err.getvalue()

    def answer(self, line, env=None, process=False):
        """(Answer, None) or (Answer, reason)."""
        argv = shlex.split(line) if isinstance(line, str) else [str(word) for word in line]
        if any(MISSING in word for word in argv):
            return Answer(), f"what it needs was not made ({self.last_failure})"
        code, out, err = self.run(argv, env, process)
        answer = Answer()
        answer.text = out
        try:
            value = json.loads(out)
        except ValueError:
            value = None
        if isinstance(value, dict):
            answer.update({key_of(k): v for k, v in value.items()})
        elif isinstance(value, list):
            answer.rows = [normal(row) for row in value]
        if code:
            lines = [text for text in err.strip().splitlines() if text.strip()] or [f"exit {code}"]
            return answer, lines[-1].strip()[:300]
        return answer, None

    def judge(self, answer, has, row, norow, text):
        """What is not as it should be, or None."""
        for key, want in (has or {}).items():
            if not matches(want, answer.get(key_of(key))):
                return f"{key} is {answer.get(key_of(key))!r}" + ("" if callable(want) else f", not {want!r}")
        if row is not None and not any(matches(row, got) for got in answer.rows):
            return f"no row like {row!r} among {len(answer.rows)}"
        if norow is not None and any(matches(norow, got) for got in answer.rows):
            return f"there is still a row like {norow!r}"
        if text is not None and not matches(text if callable(text) else {text}, answer.text):
            return f"{text!r} is not in the output"
        return None

    def note(self, name, reason):
        """A case of the command ended; the first reason stands."""
        if self.results.get(name) is None:
            self.results[name] = reason
        if reason:
            self.last_failure = name
        if os.environ.get("WALK_VERBOSE"):
            sys.stderr.write(f"{'ok  ' if reason is None else 'FAIL'} {name}{': ' + reason if reason else ''}\n")

    def do(self, line, by=None, has=None, row=None, norow=None, text=None, gone=None, wait=0, env=None, by_env=None, by_sdk=None, process=False):
        """One case: runs `line`, then looks at the effect: in the answer of the command `by`, or in its own. `gone` is a command that
        must fail afterwards, `by_sdk` looks at what the client cannot show. `wait` is how many seconds the effect may take. Returns the command's own answer."""
        name = self.command_of(shlex.split(line) if isinstance(line, str) else [str(word) for word in line])
        assert gone or has or row or norow or text or by_sdk, f"{line}: a case without a check"
        begun = time.monotonic()
        answer, reason = self.answer(line, env, process)
        end = time.monotonic() + wait
        while reason is None:
            if gone:
                _, left = self.answer(gone, by_env or env)
                wrong = None if left else f"`{gone}` still answers"
            else:
                wrong = None
            if wrong is None and by_sdk and not by_sdk(self.connect()):
                wrong = "the effect is not seen through openstacksdk"
            if wrong is None and (has or row or norow or text):
                seen, wrong = (answer, None)
                if by:
                    seen, wrong = self.answer(by, by_env or env)
                wrong = wrong or self.judge(seen, has, row, norow, text)
                if wrong and by:
                    wrong = f"`{by}`: {wrong}"
            if wrong is None:
                break
            if time.monotonic() > end:
                reason = wrong
            elif by is None and not gone and not by_sdk:
                time.sleep(0.3)
                answer, reason = self.answer(line, env, process)
            else:
                time.sleep(0.3)
        self.took[name] = self.took.get(name, 0) + time.monotonic() - begun
        self.note(name, reason)
        return answer if reason is None else Answer()

    def quiet(self, line, **options):
        """Runs a command that is no case here (setting the scene, tidying up)."""
        answer, reason = self.answer(line, **options)
        if reason and os.environ.get("WALK_VERBOSE"):
            sys.stderr.write(f"  -- {line}: {reason}\n")
        return answer

    def until(self, line, seconds, **checks):
        """Waits until a command's answer is as wanted; whether it came to be."""
        end = time.monotonic() + seconds
        while True:
            answer, reason = self.answer(line)
            if reason is None and self.judge(answer, checks.get("has"), checks.get("row"), checks.get("norow"), checks.get("text")) is None:
                return True
            if time.monotonic() > end:
                return False
            time.sleep(0.3)
