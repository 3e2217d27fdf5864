"""Many connections that say nothing.

silent.py HOST:PORT N     opens N connections, says `open N`, then waits until
                          the other side has closed each of them; says how long
                          the last one took and how many bytes came in all
"""

import resource
import selectors
import socket
import sys
import time

host, port = sys.argv[1].rsplit(":", 1)
count = int(sys.argv[2])
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

selector = selectors.DefaultSelector()
received = 0
opened = {}
longest = 0.0


def look(timeout):
    """Takes note of whatever the other side did."""
    global received, longest
    for key, _ in selector.select(timeout):
        try:
            data = key.fileobj.recv(4096)
        except ConnectionError:
            data = b""
        received += len(data)
        if not data:
            longest = max(longest, time.monotonic() - opened.pop(key.fileobj))
            selector.unregister(key.fileobj)
            key.fileobj.close()


for number in range(count):
    connection = socket.create_connection((host, int(port)))
    connection.setblocking(False)
    opened[connection] = time.monotonic()
    selector.register(connection, selectors.EVENT_READ)
    if number % 100 == 0:
        look(0)
print(f"open {count}", flush=True)
deadline = time.monotonic() + 60
while opened and time.monotonic() < deadline:
    look(1)
print(f"left {len(opened)} received {received} longest {longest:.1f}", flush=True)
sys.exit(1 if opened or received else 0)
