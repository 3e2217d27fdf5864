"""Both ends of WebSocket tests, from the `websockets` package.

websocket.py serve               an echo server
websocket.py load URL DOOR N     N connections at once through the door at
                                 HOST:PORT, two messages each, all echoed
"""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def server():
    async with serve(echo, "127.0.0.1", 0, compression=None, max_size=None) as running:
        host, port = next(iter(running.sockets)).getsockname()[:2]
        print(f"listening on {host}:{port}", flush=True)
        await asyncio.get_running_loop().create_future()


async def one(url, host, port, number, all_open):
    """Holds its connection until all are open, then talks."""
    async with connect(
        url, host=host, port=port, compression=None, max_size=None, proxy=None, open_timeout=60
    ) as connection:
        await all_open.wait()
        text = f"message {number}"
        data = bytes([number % 256]) * (1 + number * 37 % 70_000)
        for message in (text, data):
            await connection.send(message)
            if await connection.recv() != message:
                raise SystemExit(f"connection {number} got something else back")


async def load(url, door, count):
    host, port = door.rsplit(":", 1)
    all_open = asyncio.Barrier(count)
    tasks = [one(url, host, int(port), number, all_open) for number in range(count)]
    await asyncio.gather(*tasks)
    print(f"echoed {count}", flush=True)


if sys.argv[1] == "serve":
    asyncio.run(server())
else:
    asyncio.run(load(sys.argv[2], sys.argv[3], int(sys.argv[4])))
