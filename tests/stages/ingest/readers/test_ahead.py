"""Results in order, in threads, with errors where they belong and never more than a few inputs read ahead."""

import threading
import time

import pytest

from stages.ingest.readers.ahead import ahead


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order_whatever_takes_longer(workers):
    def slow_at_first(number):
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    assert list(ahead(slow_at_first, range(20), workers)) == [number * number for number in range(20)]


def test_several_are_in_work_at_once_and_few_are_read_ahead():
    together, read = threading.Barrier(3, timeout=600), []

    def inputs():
        for number in range(12):
            read.append(number)
            yield number

    def meets_others(number):
        together.wait()  # breaks unless three are in work at once
        return number

    for number in ahead(meets_others, inputs(), 3):
        assert len(read) <= number + 4
    assert read == list(range(12))


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_comes_after_the_results_before_it(workers):
    def fails_at_three(number):
        if number == 3:
            raise ValueError("three")
        return number

    seen = []
    with pytest.raises(ValueError, match="three"):
        for number in ahead(fails_at_three, range(9), workers):
            seen.append(number)
    assert seen == [0, 1, 2]
