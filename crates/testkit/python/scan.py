"""A stranger with a port scanner.

scan.py ADDRESS [ROUNDS]

Connects to each of the 65,535 TCP ports of ADDRESS and prints `open PORT` for
each that takes it. Then it says something to each open port, ROUNDS times, in
the tongues that scanners try, and prints `said PORT PROBE ANSWER` for each,
where ANSWER is what came back within a second, in Python's notation, and
`gone` behind it where the other side ended the connection; `refused` where it
took none. At last it sends a datagram to a few UDP ports, and prints
`datagram PORT` for each answer.
"""

import errno
import selectors
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

AT_A_TIME = 400
WAIT = 1.0
# What scanners send first: nothing, HTTP, TLS (a hello of version 1.2), SSH,
# a database, and noise.
HELLO = bytes.fromhex("160301002f0100002b0303") + bytes(32) + bytes.fromhex("000004c02bc02f0100")
PROBES = {
    "nothing": b"",
    "lines": b"\r\n\r\n",
    "http": b"GET / HTTP/1.0\r\n\r\n",
    "options": b"OPTIONS / RTSP/1.0\r\n\r\n",
    "tls": HELLO,
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "postgres": bytes.fromhex("0000000804d2162f"),
    "noise": bytes((n * 37) % 256 for n in range(512)),
}
UDP_PORTS = (53, 80, 443, 500, 1900, 2222, 5353, 7400, 8443, 9090)


def scan(address):
    selector = selectors.DefaultSelector()
    waiting, found, flying = iter(range(1, 65536)), [], 0
    more = True
    while more or flying:
        while more and flying < AT_A_TIME:
            port = next(waiting, None)
            if port is None:
                more = False
                break
            s = socket.socket()
            s.setblocking(False)
            result = s.connect_ex((address, port))
            if result not in (0, errno.EINPROGRESS):
                s.close()
                continue
            selector.register(s, selectors.EVENT_WRITE, port)
            flying += 1
        for key, _ in selector.select(5):
            selector.unregister(key.fileobj)
            if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(key.data)
            key.fileobj.close()
            flying -= 1
    return sorted(found)


def talk(address, port, probe):
    try:
        s = socket.create_connection((address, port), timeout=WAIT)
    except OSError:
        return "refused"
    said, until = b"", time.monotonic() + WAIT
    with s:
        try:
            s.sendall(probe)
            while (left := until - time.monotonic()) > 0:
                s.settimeout(left)
                part = s.recv(65536)
                if not part:
                    return f"{said!r} gone"
                said += part
        except TimeoutError:
            pass
        except OSError:
            return f"{said!r} gone"
    return repr(said)


def datagrams(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for port in UDP_PORTS:
            s.sendto(PROBES["noise"], (address, port))
        s.settimeout(WAIT)
        try:
            while True:
                _, (_, port) = s.recvfrom(2048)
                print(f"datagram {port}", flush=True)
        except TimeoutError:
            pass


def main():
    address = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    found = scan(address)
    for port in found:
        print(f"open {port}", flush=True)
    asked = [(port, name) for port in found for name in PROBES]
    with ThreadPoolExecutor(len(PROBES)) as threads:
        for _ in range(rounds):
            answers = threads.map(lambda a: talk(address, a[0], PROBES[a[1]]), asked)
            for (port, name), answer in zip(asked, answers):
                print(f"said {port} {name} {answer}", flush=True)
    datagrams(address)


main()
