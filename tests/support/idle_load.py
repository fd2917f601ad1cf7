"""
The clients and the servers of many idle sessions, in one separate process.

The first argument is the port that the proxy listens on.  The process first prints the port of its
server.  Commands come line by line on standard input, and each gets a line as an answer:
``connect N`` makes N sessions, ``ask`` sends a request on each and waits for all answers.
"""

from __future__ import annotations

import resource
import select
import socket
import sys


class Sessions:
    """The client and the server of each session."""

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
        """Return how many clients got back their own bytes from their servers."""
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
    """Run the commands on standard input."""
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
