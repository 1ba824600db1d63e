"""The semaphore of cores: never more taken than there are, nobody starved, a greedy stage gets all."""

import threading
import time

from tasks.system.resource_pool import ResourcePool


def test_never_more_than_there_are() -> None:
    cores = ResourcePool(3)
    now, most = 0, 0
    guard = threading.Lock()

    def work(count: int) -> None:
        nonlocal now, most
        with cores.acquire(count) as taken:
            with guard:
                now += taken
                most = max(most, now)
            time.sleep(0.01)
            with guard:
                now -= taken

    threads = [threading.Thread(target=work, args=(count,)) for count in (1, 3, 2, 99, 1, 1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert not any(thread.is_alive() for thread in threads)
    assert most == 3 and cores.free == 3


def test_stopping_ends_the_wait() -> None:
    cores = ResourcePool(1)
    stopped = threading.Event()
    with cores.acquire(1):
        threading.Timer(0.1, stopped.set).start()
        with cores.acquire(1, stopped.is_set) as taken:
            assert taken == 0
    assert cores.free == 1
