"""
The peers of many idle sessions, both ends of each, in a process of their own.

Run with the port that the proxy listens on as the first argument; it first says on which port
the server is.  Commands come line by line on standard input, and each is answered by a line:
``connect N`` makes N sessions, ``ask`` sends a question on each and waits for all the answers.
"""

from __future__ import annotations

import resource
import select
import socket
import sys


class Sessions:
    """The two ends of each session that there is."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listening.settimeout(20)
        self.clients: list[socket.socket] = []
        self.servers: list[socket.socket] = []

    def connect(self, port: int, count: int) -> None:
        """Make `count` sessions through the proxy at `port`."""
        for _ in range(count):
            self.clients.append(socket.create_connection(("127.0.0.1", port), 20))
            self.servers.append(self.listening.accept()[0])

    def ask(self) -> int:
        """How many clients got back, from their servers, what they alone had sent."""
        poll = select.poll()
        servers = {server.fileno(): server for server in self.servers}
        for number, client in enumerate(self.clients):
            client.send(number.to_bytes(4))
        for descriptor in servers:
            poll.register(descriptor, select.POLLIN)
        while servers:
            ready = poll.poll(20_000)
            if not ready:
                return 0
            for descriptor, _ in ready:
                server = servers.pop(descriptor)
                server.send(server.recv(4))
                poll.unregister(descriptor)
        return sum(
            client.recv(5) == number.to_bytes(4) for number, client in enumerate(self.clients)
        )


def main() -> None:
    """Do what standard input says."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sessions = Sessions()
    print(sessions.listening.getsockname()[1], flush=True)
    for line in sys.stdin:
        match line.split():
            case ["connect", port, count]:
                sessions.connect(int(port), int(count))
                print(len(sessions.clients), flush=True)
            case ["ask"]:
                print(sessions.ask(), flush=True)


if __name__ == "__main__":
    main()
