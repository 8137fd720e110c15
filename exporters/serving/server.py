"""The socket of a served policy: websockets in, answers out, in order, until it is told to stop."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

from pytest_reflex.errors import SettingsError
from pytest_reflex.runners import wire

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

MAX_CLIENTS: Final = 64
_WORKERS: Final = min(4, os.cpu_count() or 1)
_CLOSE_S: Final = 5.0  # for a client to say goodbye too
_GRACE_S: Final = 60.0  # for requests in flight when the server is stopped
_GOING_AWAY, _TRY_AGAIN = 1001, 1013  # of RFC 6455


class Answers(Protocol):
    """What is served."""

    name: str
    metadata: dict[str, Any]

    def answer(
        self, message: str | bytes, prev_total_ms: float | None = None, held: dict[str, Any] | None = None
    ) -> str | bytes:
        """The reply to one message; it raises nothing and may be called from several threads.

        ``held`` is a client's own, from its first message to its last.
        """


def bound(host: str, port: int) -> socket.socket:
    """A socket that has its address, and does not listen yet.

    Raises:
        SettingsError: there is no such host here, or the port is taken or not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        made = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"cannot listen on {host!r}: {why}; give --host an address of this machine"
        ) from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; give another --host or --port"
        ) from error
    return made


class Server:
    """A proven policy on a socket that has its address.

    Args:
        service: what is served.
        listening: the socket, bound.
        proven: what was proven of it, in a line.
        api_key: what clients must send, or None.
        max_size: the largest message in bytes; a larger one costs its sender the connection.
    """

    def __init__(
        self, service: Answers, listening: socket.socket, *, proven: str, api_key: str | None, max_size: int
    ) -> None:
        self.proven = proven
        self._service = service
        self._socket = listening
        self._api_key = api_key
        self._max_size = max_size
        self._clients = 0
        self._idle: set[ServerConnection] = set()
        self._stopping = False
        self._greeting = wire.encode(service.metadata)
        self._pool = ThreadPoolExecutor(_WORKERS, "reflex-serve")

    @property
    def url(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"

    @property
    def exposed(self) -> bool:
        """Whether other machines may reach it, and nothing asks who they are."""
        host = str(self._socket.getsockname()[0]).partition("%")[0]
        return self._api_key is None and not ipaddress.ip_address(host).is_loopback

    def run(self, say: Callable[[str], None]) -> None:
        """Serve until SIGTERM or SIGINT; then finish what is in flight and return.

        Args:
            say: told what was proven, and where it is served once clients can connect.

        Raises:
            SettingsError: the port was taken meanwhile.
        """
        asyncio.run(self._run(say))

    async def _run(self, say: Callable[[str], None]) -> None:
        serve = wire.package("websockets.asyncio.server").serve
        # Before anyone is told that there is something to stop.
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        # What a client does wrong in its handshake is no event of this server.
        silent = logging.Logger("reflex.serve.websockets", logging.CRITICAL + 1)
        with self._pool:
            try:
                server = await serve(
                    self._serve,
                    sock=self._socket,
                    process_request=self._admit,
                    # A web page may open sockets to this machine, and a browser always says whose it is.
                    origins=[None],
                    compression=None,
                    max_size=self._max_size,
                    max_queue=2,
                    close_timeout=_CLOSE_S,
                    logger=silent,
                )
            except OSError as error:
                self._socket.close()
                raise SettingsError(
                    f"cannot listen on {self.url}: {error.strerror or error}; give another --port"
                ) from error
            say(self.proven)
            say(f"serving {self._service.name} on {self.url}")
            await stop.wait()
            self._stopping = True
            server.close(close_connections=False)
            goodbyes = [asyncio.create_task(self._goodbye(connection)) for connection in self._idle]
            try:
                await asyncio.wait_for(server.wait_closed(), _GRACE_S)
            except TimeoutError:
                server.close()
            for goodbye in goodbyes:
                goodbye.cancel()

    async def _goodbye(self, connection: ServerConnection) -> None:
        await connection.close(_GOING_AWAY, "the server is stopping")

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to what is no client, or None for one that may connect."""
        if request.path == "/healthz":
            return connection.respond(HTTPStatus.OK, "OK\n")
        if self._api_key is not None:
            given = request.headers.get_all("Authorization")
            wanted = f"Api-Key {self._api_key}".encode()
            if len(given) != 1 or not hmac.compare_digest(given[0].encode("utf-8", "replace"), wanted):
                return connection.respond(HTTPStatus.UNAUTHORIZED, "send Authorization: Api-Key ...\n")
        if self._stopping or self._clients >= MAX_CLIENTS:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "no more clients; try again later\n")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        closed = wire.package("websockets.exceptions").ConnectionClosed
        # A client that went away still counts until its last request is through: it cannot pile them up.
        self._clients += 1
        try:
            if self._clients > MAX_CLIENTS:
                await connection.close(_TRY_AGAIN, "no more clients; try again later")
            else:
                await self._converse(connection)
        except closed:
            pass
        finally:
            self._clients -= 1
            self._idle.discard(connection)

    async def _converse(self, connection: ServerConnection) -> None:
        """Answer one message at a time; more wait in the socket."""
        loop = asyncio.get_running_loop()
        await connection.send(self._greeting)
        previous: float | None = None
        held: dict[str, Any] = {}
        while not self._stopping:
            self._idle.add(connection)
            message = await connection.recv()
            self._idle.discard(connection)
            begin = time.perf_counter()
            reply = await loop.run_in_executor(self._pool, self._service.answer, message, previous, held)
            del message  # megabytes, not to be held until the next one is there
            await connection.send(reply)
            previous = (time.perf_counter() - begin) * 1e3
        await self._goodbye(connection)
