"""Where the time goes, by phase and thread."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from checkpoints import tiny_llama

from gguf_forge import convert, quantize_gguf
from gguf_forge.storage.profile import CONVERT, PLAN, QUANTIZE, READ, SYNC, WAIT, WRITE, Profile, phase


def test_the_phases_of_a_thread_add_up_and_do_not_overlap() -> None:
    profile = Profile()
    begun = time.perf_counter()
    with profile.thread("main"):
        with phase(CONVERT):
            time.sleep(0.01)
            with phase(READ):
                time.sleep(0.03)
        time.sleep(0.02)
    took = time.perf_counter() - begun
    (watch,) = profile.watches
    assert set(watch.seconds) == {CONVERT, READ, WAIT}
    assert watch.seconds[READ] >= 0.03
    assert sum(watch.seconds.values()) <= took
    # sleeping is no work
    assert watch.busy[READ] < 0.03


def test_a_phase_ends_with_an_error() -> None:
    profile = Profile()
    with profile.thread("main"):
        with pytest.raises(ValueError), phase(READ):
            raise ValueError
        time.sleep(0.01)
    assert profile.watches[0].seconds[WAIT] >= 0.01


def test_threads_and_profiles_do_not_see_each_other() -> None:
    profiles = [Profile(), Profile()]

    def work(profile: Profile) -> None:
        with profile.thread("one"), phase(READ):
            together.wait()

    together = threading.Barrier(3)
    threads = [threading.Thread(target=work, args=(profile,)) for profile in profiles]
    for thread in threads:
        thread.start()
    with phase(WRITE):  # nobody measures this thread
        together.wait()
    for thread in threads:
        thread.join()
    assert [[set(watch.seconds) for watch in profile.watches] for profile in profiles] == [[{READ, WAIT}]] * 2


def test_a_conversion_tells_every_phase(tmp_path: Path) -> None:
    profile, again = Profile(), Profile()
    (result,) = convert(tiny_llama(tmp_path), tmp_path / "out.gguf", types="F16", threads=2, profile=profile)
    quantize_gguf(result.path, tmp_path / "q.gguf", types="Q4_0", threads=1, profile=again)
    main, *workers = profile.watches
    assert main.thread == "main"
    assert {"worker 1", "worker 2"} <= {watch.thread for watch in workers}
    assert {PLAN, SYNC, WAIT} <= set(main.seconds)
    assert {phase for watch in workers for phase in watch.seconds} >= {READ, CONVERT, WRITE}
    assert any(QUANTIZE in watch.seconds for watch in again.watches)
