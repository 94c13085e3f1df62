"""What the processes that try bad input share: limits, a judge of every case, a report.

A process is run by `tests/test_trust_fuzz.py` and `tests/test_trust_files.py`, so that a crash is seen as one.
"""

import collections
import faulthandler
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from elman.errors import ElmanError

SECONDS = 5.0
"""Most CPU time of a case, of all threads together: others may use the machine, and the clock on the wall tells of
them."""
MEMORY = 1 << 30
"""Most address space that all cases may take beyond what the process has before the first."""
_NAMED = re.compile(r"^[\w.\[\]'\"(), -]+?: |^\w+ and \w+ cannot be given together")
_CHUNK = 2500
_RUNS = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect")


class Judge:
    """Counts what cases come to; anything but a result or a named error of the library ends the process."""

    def __init__(self):
        self.counts, self.slowest, self.files = collections.Counter(), 0.0, ()

    def run(self, case, *, named="", allowed=()):
        """The result of `case()`, or None after an error of the library that begins with `named`."""
        result, kind, spent = self._timed(case, named, allowed)
        if spent > SECONDS:  # the first of its kind compiles
            result, kind, spent = self._timed(case, named, allowed)
        self.counts[kind] += 1
        self.slowest = max(self.slowest, spent)
        assert spent < SECONDS, f"{spent:.1f} s"
        return result

    def _timed(self, case, named, allowed):
        begin, result, kind = time.process_time(), None, "results"
        signal.setitimer(signal.ITIMER_PROF, 10 * SECONDS)  # what never ends is ended, and tells where it was
        try:
            result = case()
        except ElmanError as error:
            assert _NAMED.match(str(error)) and str(error).startswith(named), f"no argument is named: {error!r}"
            kind = type(error).__name__
        except allowed as error:
            kind = type(error).__name__
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return result, kind, time.process_time() - begin


def confine():
    """From here on the process gets no more than MEMORY, and a crash tells where it was."""
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)
    confine.base = _peak()
    if sys.platform.startswith("linux"):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def watch(folder):
    """Forbid to run code and to write outside `folder` while `watch.on` is true."""

    def hook(event, arguments):
        if not watch.on:
            return
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if event in _RUNS or (writes and not str(arguments[0]).startswith(str(folder))):
            watch.seen.append((event, arguments))

    sys.addaudithook(hook)


watch.on, watch.seen = False, []


def explore(strategy, case, count):
    """Run `case` on `count` draws, the same ones in every run; in chunks, as hypothesis remembers what it drew."""
    for chunk in range(0, count, _CHUNK):
        examples = min(_CHUNK, count - chunk)

        @seed(chunk)
        @settings(
            max_examples=examples, deadline=None, database=None, phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck), verbosity=Verbosity.normal,
        )  # fmt: skip
        @given(strategy)
        def trial(drawn):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                case(drawn)

        trial()
        print(f"{chunk + examples} cases", file=sys.stderr)


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report(judge, count):
    found = {"cases": count, "counts": judge.counts, "slowest": judge.slowest, "grown": _peak() - confine.base}
    json.dump(found, sys.stdout)


def launch(script, *arguments, timeout):
    """The report of such a process."""
    command = [sys.executable, "-X", "faulthandler", str(Path(__file__).with_name(script)), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr[-6000:]}"
    return json.loads(done.stdout.splitlines()[-1])
