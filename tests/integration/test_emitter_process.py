"""The emitter in processes that really end: orderly, by signal, by force, and by forking."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from tidegate.schemas.envelope import Envelope

if not hasattr(os, "fork"):
    pytest.skip("processes of POSIX only", allow_module_level=True)

# A log that every process can write and this one can read: one file, a frame an envelope, away while `<file>.away` exists.
PRELUDE = """
import os, signal, struct, sys, threading, time
from pathlib import Path
import orjson
from tidegate.producers.emitter import Emitter
from tidegate.schemas.errors import LogUnavailable
from tidegate.schemas.settings import Settings

FILE = Path(sys.argv[1])

class FileLog:
    def append(self, envelopes):
        if FILE.with_suffix(".away").exists():
            raise LogUnavailable("away")
        while FILE.with_suffix(".stuck").exists():
            time.sleep(0.005)
        frames = b""
        for envelope in envelopes:
            payload = orjson.dumps(envelope.headers()) + b"\\n" + envelope.value
            frames += struct.pack(">I", len(payload)) + payload
        # All or nothing, as a log is: a kill in the middle of a write leaves a draft that nobody reads.
        draft = FILE.parent / f"draft-{os.getpid()}-{time.time_ns()}"
        draft.write_bytes(frames)
        FILE.mkdir(exist_ok=True)
        os.replace(draft, FILE / f"{time.time_ns():020}-{os.getpid()}")
    def close(self):
        pass

def event(name):
    return {"event": "response", "call_id": str(name), "started_at": "2026-11-02T08:00:00Z", "request_model": "m"}

def make(**settings):
    spool = FILE.parent / "spool"
    return Emitter(FileLog(), settings=Settings(**{"spool_dir": spool, "linger_s": 0.005, **settings}), reopen=FileLog)

def say(word):
    print(word, flush=True)
"""


class Stage:
    """Runs programs against one file log, and reads what a meter would count of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "calls.log"
        self.running: list[subprocess.Popen[str]] = []

    def start(self, program: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(program), str(self.file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )
        self.running.append(process)
        return process

    def run(self, program: str) -> subprocess.Popen[str]:
        process = self.start(program)
        self.end(process)
        return process

    def end(self, process: subprocess.Popen[str]) -> str:
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        return out

    def heard(self, process: subprocess.Popen[str], word: str) -> None:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line == word, line + (process.communicate()[1] if process.poll() is not None else "")

    def away(self, is_away: bool) -> None:
        flag = self.file.with_suffix(".away")
        flag.touch() if is_away else flag.unlink()

    def counted(self) -> dict[str, list[str]]:
        """The call ids of each producer as a meter counts them; fails on a gap."""
        found: dict[str, list[str]] = {}
        rest = b"".join(batch.read_bytes() for batch in sorted(self.file.iterdir())) if self.file.exists() else b""
        while rest:
            length = int.from_bytes(rest[:4], "big")
            headers, _, value = rest[4 : 4 + length].partition(b"\n")
            rest = rest[4 + length :]
            envelope = Envelope.from_record(orjson.loads(headers), value)
            events = found.setdefault(envelope.producer, [])
            assert envelope.seq <= len(events), "a gap in the numbers"
            events.extend(orjson.loads(line)["call_id"] for line in envelope.lines()[len(events) - envelope.seq :])
        return found

    def only(self) -> list[str]:
        (events,) = self.counted().values()
        return events


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    for process in stage.running:
        process.kill()
        process.communicate()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the other process did not get there"
        time.sleep(0.005)


def names(count: int) -> list[str]:
    return [str(n) for n in range(count)]


# --- the orderly end


def test_the_end_of_the_program_sends_what_is_left(stage: Stage) -> None:
    process = stage.run("""
        tide = make(linger_s=5)
        for n in range(3_000):
            tide.emit(event(n))
    """)

    assert process.returncode == 0
    assert stage.only() == names(3_000)


@pytest.mark.parametrize(("ending", "status"), [("sys.exit(7)", 7), ("raise SystemExit(3)", 3), ("1 / 0", 1)])
def test_every_way_to_end_the_interpreter_sends_and_keeps_its_status(stage: Stage, ending: str, status: int) -> None:
    process = stage.start(f"""
        tide = make(linger_s=5)
        tide.emit(event(0))
        {ending}
    """)
    process.communicate(timeout=60)

    assert process.returncode == status
    assert stage.only() == ["0"]


def test_events_of_threads_that_outlive_the_main_program_are_sent(stage: Stage) -> None:
    stage.run("""
        tide = make()
        def work():
            threading.main_thread().join()
            for n in range(100):
                tide.emit(event(n))
        threading.Thread(target=work).start()
    """)

    assert stage.only() == names(100)


def test_a_first_event_from_an_exit_hook_is_sent_though_no_thread_may_start(stage: Stage) -> None:
    stage.run("""
        import atexit
        tide = make()
        atexit.register(lambda: tide.emit(event(0)))
    """)

    assert stage.only() == ["0"]


def test_the_end_of_the_program_does_not_wait_for_a_log_that_is_away_but_keeps_the_events(stage: Stage) -> None:
    stage.away(True)
    stage.run("""
        tide = make(flush_timeout_s=60)
        for n in range(10):
            tide.emit(event(n))
    """)
    assert stage.counted() == {}

    stage.away(False)
    stage.run("tide = make(); tide.emit(event('heir'))")

    assert list(stage.counted().values()) == [names(10), ["heir"]]
    assert list((stage.folder / "spool").iterdir()) == []


def test_a_log_that_hangs_holds_the_end_up_no_longer_than_the_bound(stage: Stage) -> None:
    stuck = stage.file.with_suffix(".stuck")
    stuck.touch()
    process = stage.run("""
        tide = make(flush_timeout_s=0.2, linger_s=0)
        tide.emit(event(0))
        while tide.stats().pending == 0 or tide._queue.qsize():
            time.sleep(0.001)
        tide.emit(event(1))
    """)
    assert process.returncode == 0
    assert stage.counted() == {}

    stuck.unlink()
    stage.run("make().flush()")

    assert stage.only() == ["0", "1"]


def test_worker_processes_of_multiprocessing_send_what_is_left(stage: Stage) -> None:
    stage.run("""
        import multiprocessing
        tide = make(linger_s=5)
        tide.emit(event("parent"))
        def work(name):
            tide.emit(event(name))
        if __name__ == "__main__":
            context = multiprocessing.get_context("fork")
            workers = [context.Process(target=work, args=(f"child-{n}",)) for n in range(3)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
                assert worker.exitcode == 0
    """)

    assert sorted(stage.counted().values()) == [["child-0"], ["child-1"], ["child-2"], ["parent"]]


# --- SIGTERM

EMIT_FOR_EVER = """
        say("ready")
        n = 0
        while True:
            tide.emit(event(n))
            n += 1
            if n % 100 == 0:
                tide.wait_for_room()
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.05])
def test_sigterm_in_the_middle_of_emit_sends_what_is_left_and_keeps_the_status(stage: Stage, delay_s: float) -> None:
    process = stage.start("tide = make(linger_s=0.05)\n" + textwrap.dedent(EMIT_FOR_EVER))
    stage.heard(process, "ready")
    sent_at = time.monotonic() + delay_s
    until(lambda: time.monotonic() >= sent_at)

    process.send_signal(signal.SIGTERM)
    stage.end(process)

    assert process.returncode == -signal.SIGTERM
    counted = stage.counted()
    assert not counted or stage.only() == names(len(stage.only()))


def test_sigterm_loses_no_event_that_was_accepted(stage: Stage) -> None:
    process = stage.start("""
        tide = make(linger_s=5)
        for n in range(2_000):
            tide.emit(event(n))
        say("ready")
        while True:
            time.sleep(60)
    """)
    stage.heard(process, "ready")

    process.send_signal(signal.SIGTERM)
    stage.end(process)

    assert process.returncode == -signal.SIGTERM
    assert stage.only() == names(2_000)


def test_sigterm_while_the_log_hangs_is_obeyed_within_the_bound_and_loses_nothing(stage: Stage) -> None:
    stuck = stage.file.with_suffix(".stuck")
    stuck.touch()
    process = stage.start("""
        tide = make(flush_timeout_s=0.2, linger_s=0)
        tide.emit(event(0))
        say("ready")
        while True:
            time.sleep(60)
    """)
    stage.heard(process, "ready")
    process.send_signal(signal.SIGTERM)
    stage.end(process)
    assert process.returncode == -signal.SIGTERM

    stuck.unlink()
    stage.run("make().flush()")

    assert stage.only() == ["0"]


def test_sigterm_while_the_program_logs_does_not_wait_for_its_own_logging_lock(stage: Stage) -> None:
    stage.away(True)
    process = stage.start("""
        import logging
        class Slow(logging.Handler):
            def emit(self, record):
                if record.name == "app":
                    say("ready")
                    time.sleep(60)
        logging.getLogger().addHandler(Slow())
        tide = make(flush_timeout_s=30)
        tide.emit(event(0))
        logging.getLogger("app").warning("holding the handler's lock")
    """)
    stage.heard(process, "ready")
    began_at = time.monotonic()

    process.send_signal(signal.SIGTERM)
    stage.end(process)

    assert process.returncode == -signal.SIGTERM
    assert time.monotonic() - began_at < 25


def test_a_handler_of_the_application_is_respected(stage: Stage) -> None:
    process = stage.start("""
        def mine(signum, frame):
            say("mine")
            sys.exit(9)
        signal.signal(signal.SIGTERM, mine)
        tide = make(linger_s=5)
        assert signal.getsignal(signal.SIGTERM) is mine
        tide.emit(event(0))
        say("ready")
        while True:
            time.sleep(60)
    """)
    stage.heard(process, "ready")

    process.send_signal(signal.SIGTERM)
    out = stage.end(process)

    assert out.strip() == "mine"
    assert process.returncode == 9
    assert stage.only() == ["0"], "its exit runs the interpreter's hooks, and those send"


def test_a_handler_set_later_replaces_ours_and_ignoring_stays_ignored(stage: Stage) -> None:
    process = stage.start("""
        tide = make()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        other = make()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGTERM)
        tide.emit(event(0))
    """)
    stage.end(process)

    assert process.returncode == 0
    assert stage.only() == ["0"]


def test_an_emitter_made_in_a_thread_touches_no_signal(stage: Stage) -> None:
    process = stage.run("""
        thread = threading.Thread(target=lambda: make().emit(event(0)))
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    """)

    assert process.returncode == 0
    assert stage.only() == ["0"]


# --- fork


def test_a_forked_child_starts_afresh_and_nothing_is_sent_twice(stage: Stage) -> None:
    process = stage.run("""
        tide = make(linger_s=1)
        parent = tide.producer
        for n in range(500):
            tide.emit(event(f"parent-{n}"))
        pid = os.fork()
        if pid == 0:
            assert tide.producer != parent
            assert tide.stats().emitted == 0
            for n in range(500):
                tide.emit(event(f"child-{n}"))
            sys.exit(0)
        assert tide.producer == parent
        tide.emit(event("parent-500"))
        assert os.waitpid(pid, 0)[1] == 0
    """)

    assert process.returncode == 0
    assert sorted(stage.counted().values()) == [[f"child-{n}" for n in range(500)], [f"parent-{n}" for n in range(501)]]


def test_forking_under_load_hangs_neither_side(stage: Stage) -> None:
    process = stage.run("""
        tide = make(linger_s=0)
        stop = threading.Event()
        def load():
            n = 0
            while not stop.is_set():
                tide.wait_for_room(1)
                tide.emit(event(f"load-{n}"))
                n += 1
        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        children = []
        for n in range(20):
            pid = os.fork()
            if pid == 0:
                tide.emit(event(f"child-{n}"))
                os._exit(0 if tide.close(20) else 1)
            children.append(pid)
        codes = [os.waitpid(pid, 0)[1] for pid in children]
        stop.set()
        for thread in threads:
            thread.join()
        assert codes == [0] * 20, codes
        say(tide.stats().emitted)
    """)

    assert process.returncode == 0
    counted = list(stage.counted().values())
    assert sorted(events[0] for events in counted if len(events) == 1) == sorted(f"child-{n}" for n in range(20))
    assert len(counted) == 21


def test_a_child_of_a_fork_leaves_its_parent_s_spool_alone(stage: Stage) -> None:
    stage.away(True)
    process = stage.run("""
        tide = make()
        tide.emit(event("parent"))
        while tide.stats().spooled == 0:
            time.sleep(0.001)
        pid = os.fork()
        if pid == 0:
            tide.emit(event("child"))
            sys.exit(0)
        os.waitpid(pid, 0)
        FILE.with_suffix(".away").unlink()
        assert tide.flush(30)
    """)

    assert process.returncode == 0
    stage.run("make().flush()")
    assert sorted(stage.counted().values()) == [["child"], ["parent"]]


def test_a_child_that_outlives_its_parent_does_not_hold_its_spool(stage: Stage) -> None:
    stage.away(True)
    process = stage.start("""
        tide = make()
        tide.emit(event("parent"))
        while tide.stats().spooled == 0:
            time.sleep(0.001)
        if os.fork() == 0:
            say(os.getpid())
            while not (FILE.parent / "enough").exists():
                time.sleep(0.005)
            os._exit(0)
        while True:
            time.sleep(60)
    """)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()

    stage.away(False)
    stage.run("make().flush()")
    os.kill(child, 0)  # it lives
    (stage.folder / "enough").touch()

    assert stage.only() == ["parent"]


def test_a_living_process_takes_over_from_one_that_died_in_the_same_outage(stage: Stage) -> None:
    stage.away(True)
    survivor = stage.start("""
        tide = make()
        tide.emit(event("survivor"))
        while tide.stats().spooled == 0:
            time.sleep(0.001)
        say("ready")
        deadline = time.monotonic() + 30
        while tide.stats().adopted == 0 and time.monotonic() < deadline:
            time.sleep(0.005)
            tide.flush(0)
        say(tide.stats().adopted)
    """)
    stage.heard(survivor, "ready")
    stage.run("make().emit(event('casualty'))")

    stage.away(False)
    stage.heard(survivor, "1")
    stage.end(survivor)

    assert list(stage.counted().values()) == [["survivor"], ["casualty"]]


# --- kill -9


def test_after_kill_9_the_next_process_sends_what_was_spooled_with_its_numbers(stage: Stage) -> None:
    stage.away(True)
    process = stage.start("""
        tide = make(linger_s=0)
        for n in range(5_000):
            tide.wait_for_room()
            tide.emit(event(n))
        while tide.stats().spooled < 5_000:
            time.sleep(0.001)
        say("ready")
        n = 5_000
        while True:
            tide.wait_for_room()
            tide.emit(event(n))
            n += 1
    """)
    stage.heard(process, "ready")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    stage.away(False)
    stage.run("tide = make(); tide.emit(event('heir'))")

    spooled, heir = stage.counted().values()
    assert heir == ["heir"]
    assert len(spooled) >= 5_000
    assert spooled == names(len(spooled))
    assert list((stage.folder / "spool").iterdir()) == []


def test_kill_9_while_the_spool_is_being_sent_counts_nothing_twice(stage: Stage) -> None:
    stage.away(True)
    stage.run("""
        tide = make(linger_s=0)
        for n in range(5_000):
            tide.wait_for_room()
            tide.emit(event(n))
    """)
    stage.away(False)

    for _ in range(5):
        process = stage.start("""
            import tidegate.producers.shipper as shipper
            shipper._BATCH = 1
            tide = make()
            tide.emit(event("heir"))
            say("ready")
            time.sleep(60)
        """)
        stage.heard(process, "ready")
        process.kill()
        process.communicate()
    stage.run("make().flush()")

    counted = {events[0]: events for events in stage.counted().values()}
    assert counted["0"] == names(5_000)
    assert counted.keys() <= {"0", "heir"}


def test_a_living_process_keeps_its_own_spool(stage: Stage) -> None:
    owner = stage.start("""
        class Away(FileLog):
            def append(self, envelopes):
                raise LogUnavailable("away")
        tide = Emitter(Away(), settings=make().settings)
        tide.emit(event("owner"))
        while tide.stats().spooled == 0:
            time.sleep(0.001)
        say("ready")
        time.sleep(60)
    """)
    stage.heard(owner, "ready")

    other = stage.run("""
        tide = make()
        tide.emit(event("other"))
        assert tide.flush(30)
        assert tide.stats().adopted == 0
    """)

    assert other.returncode == 0
    assert owner.poll() is None
    assert stage.only() == ["other"]
