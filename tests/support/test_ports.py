import socket

from tests.support import ports


def test_a_port_is_free_and_below_those_of_the_system(monkeypatch):
    with socket.socket() as taken:
        port = ports.free_port()
        assert ports.LOWEST <= port < ports.lowest_of_the_system()
        taken.bind(("127.0.0.1", port))
        taken.listen()
        draws = iter((port, port, port + 1))
        monkeypatch.setattr(ports, "DICE", type("Dice", (), {"randrange": staticmethod(lambda low, high: next(draws))}))
        assert ports.free_port() == port + 1
