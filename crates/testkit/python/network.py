"""A network of namespaces joined by a wire that a test can spoil.

network.py END...

Makes for each END a network namespace with one TUN device, and carries IP
packets between them. END number i (from 1) has the addresses 10.73.i.1/16 and
fd73:0:0:i::1/48; whatever else lies in 10.73.i.0/24 or fd73:0:0:i::/64 is led to
it too. A packet to anywhere else vanishes, as in a hole.

It says `end NAME PID` for each, PID being a process inside the namespace, and
`ready` when all can be used. Then it takes lines on its input and answers each
with `answer ID ...`:

    set ID FROM TO KEY=VALUE...  conditions from one end to another, all others
                                 of that way as they were; FROM and TO may be *
    count ID FROM TO             what happened on that way so far
    seen ID FROM TO PROTO PORT   packets offered with that port at either side

Keys of `set`: delay, jitter (ms), loss (share of packets, 0 to 1), rate (Mbit/s,
0 for none), queue (bytes that may wait for the rate), mtu (larger packets
vanish, 0 for none), udp (0: none passes), only (a port, 0 for any: TCP and UDP
of other ports vanish), cut (1: nothing passes), seed.

The namespaces have no names: they end with the last process in them, and this
one ends with its input, so that a test that dies leaves nothing.
"""

import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
import traceback

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
CLONE_NEWNET = 0x40000000
DEVICE = "wire"
MTU = 1500
# What one end may have in flight by its delay, as a guard and no condition.
IN_FLIGHT = 65536
TCP, UDP = 6, 17


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def open_device(number):
    """Opens the device of this namespace, which has nothing yet."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI)
    fcntl.ioctl(device, TUNSETIFF, request)
    run("ip", "link", "set", "lo", "up")
    run("ip", "addr", "add", f"10.73.{number}.1/16", "dev", DEVICE)
    run("ip", "-6", "addr", "add", f"fd73:0:0:{number:x}::1/48", "dev", DEVICE, "nodad")
    run("ip", "link", "set", DEVICE, "mtu", str(MTU), "txqueuelen", "10000", "up")
    run("ip", "route", "add", "default", "dev", DEVICE)
    run("ip", "-6", "route", "add", "default", "dev", DEVICE)
    return device


def live_inside(number, line):
    """The life of the process that keeps a namespace: it makes it, hands its
    device over, and stays until the other side of the line is gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "a network namespace cannot be made")
    socket.send_fds(line, [b"device"], [open_device(number)])
    line.recv(1)


def make_end(name, number):
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        try:
            live_inside(number, theirs)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    theirs.close()
    said, devices, _, _ = socket.recv_fds(ours, 16, 1)
    if not said:
        sys.exit(f"the end {name} could not be made")
    print(f"end {name} {child}", flush=True)
    return ours, devices[0]


class Way:
    """Conditions and counters from one end to another."""

    NUMBERS = {
        "delay": 0.0,
        "jitter": 0.0,
        "loss": 0.0,
        "rate": 0.0,
        "queue": 1_000_000.0,
        "mtu": 0.0,
        "udp": 1.0,
        "only": 0.0,
        "cut": 0.0,
        "seed": 1.0,
    }
    CAUSES = ("lost", "full", "hole", "udp", "port", "cut")

    def __init__(self, device):
        self.device = device
        self.conditions = dict(self.NUMBERS)
        self.random = random.Random(1)
        self.free = 0.0
        self.packets = self.bytes = 0
        self.dropped = dict.fromkeys(self.CAUSES, 0)
        self.seen = {}

    def set(self, words):
        changed = {}
        for word in words:
            key, value = word.split("=")
            if key not in self.NUMBERS:
                raise ValueError(f"no condition {key}")
            changed[key] = float(value)
        self.conditions.update(changed)
        if "seed" in changed:
            self.random = random.Random(int(changed["seed"]))

    def refuses(self, size, protocol, ports):
        """Why a packet does not pass at all, or None."""
        c = self.conditions
        if c["cut"]:
            return "cut"
        if c["mtu"] and size > c["mtu"]:
            return "hole"
        if protocol == UDP and not c["udp"]:
            return "udp"
        if c["only"] and protocol in (TCP, UDP) and c["only"] not in ports:
            return "port"
        if c["loss"] and self.random.random() < c["loss"]:
            return "lost"
        return None

    def arrival(self, now, size):
        """When a packet that passes comes out; None when the queue is full."""
        c = self.conditions
        leaves = now
        if c["rate"]:
            second = c["rate"] * 125_000
            waiting = self.free - now
            if waiting < 0:
                self.free = now
            elif waiting * second + size > c["queue"]:
                return None
            self.free += size / second
            leaves = self.free
        leaves += c["delay"] / 1000
        if c["jitter"]:
            leaves += self.random.random() * c["jitter"] / 1000
        return leaves


def parse(packet):
    """The end that a packet goes to, its protocol, and its ports."""
    if packet[0] >> 4 == 4:
        to = packet[18] if packet[16:18] == b"\x0a\x49" else 0
        protocol = packet[9]
        start = (packet[0] & 15) * 4
        if (packet[6] & 0x1F) or packet[7]:
            # A later fragment has no ports, and belongs to a datagram.
            return to, protocol, ()
    else:
        to = packet[31] if packet[24:30] == b"\xfd\x73\0\0\0\0" else 0
        protocol, start = packet[6], 40
    if protocol not in (TCP, UDP):
        return to, protocol, ()
    return to, protocol, struct.unpack_from("!HH", packet, start)


class Wire:
    def __init__(self, devices):
        self.devices = devices
        count = len(devices)
        self.ways = {
            (a, b): Way(devices[b])
            for a in range(count)
            for b in range(count)
            if a != b
        }
        self.flying = []
        self.order = 0

    def read(self, end):
        device = self.devices[end]
        now = time.monotonic()
        for _ in range(64):
            try:
                packet = os.read(device, 2048)
            except BlockingIOError:
                return
            self.offer(end, packet, now)

    def offer(self, end, packet, now):
        to, protocol, ports = parse(packet)
        way = self.ways.get((end, to - 1))
        if way is None:
            return
        for port in ports:
            way.seen[protocol, port] = way.seen.get((protocol, port), 0) + 1
        size = len(packet)
        cause = way.refuses(size, protocol, ports)
        arrives = None
        if cause is None:
            arrives = way.arrival(now, size)
            if arrives is None or len(self.flying) >= IN_FLIGHT:
                cause = "full"
        if cause is not None:
            way.dropped[cause] += 1
        elif arrives <= now:
            self.deliver(way, packet)
        else:
            self.order += 1
            heapq.heappush(self.flying, (arrives, self.order, way, packet))

    def deliver(self, way, packet):
        try:
            os.write(way.device, packet)
        except BlockingIOError:
            way.dropped["full"] += 1
            return
        except OSError:
            # The end has taken its device down.
            way.dropped["cut"] += 1
            return
        way.packets += 1
        way.bytes += len(packet)

    def land(self):
        """Delivers what is due; the seconds until the next is."""
        flying = self.flying
        while flying:
            left = flying[0][0] - time.monotonic()
            if left > 0:
                return left
            _, _, way, packet = heapq.heappop(flying)
            self.deliver(way, packet)
        return None

    def run(self, take_line):
        numbers = {device: end for end, device in enumerate(self.devices)}
        watched = [*self.devices, sys.stdin.fileno()]
        text = b""
        while True:
            ready, _, _ = select.select(watched, [], [], self.land())
            for descriptor in ready:
                if descriptor in numbers:
                    self.read(numbers[descriptor])
                    continue
                part = os.read(descriptor, 65536)
                if not part:
                    return
                *lines, text = (text + part).split(b"\n")
                for line in lines:
                    take_line(line.decode())


def answer(wire, names, line):
    word, number, source, to, *rest = line.split(" ")
    chosen = [
        way
        for (a, b), way in wire.ways.items()
        if source in ("*", names[a]) and to in ("*", names[b])
    ]
    if not chosen:
        raise ValueError(f"no way from {source} to {to}")
    if word == "set":
        for way in chosen:
            way.set(rest)
        result = "done"
    elif word == "count":
        dropped = {c: sum(w.dropped[c] for w in chosen) for c in Way.CAUSES}
        fields = [f"{cause}={count}" for cause, count in dropped.items()]
        fields.append(f"packets={sum(w.packets for w in chosen)}")
        fields.append(f"bytes={sum(w.bytes for w in chosen)}")
        result = " ".join(fields)
    elif word == "seen":
        key = ({"tcp": TCP, "udp": UDP}[rest[0]], int(rest[1]))
        result = str(sum(way.seen.get(key, 0) for way in chosen))
    else:
        raise ValueError(f"no command {word}")
    print(f"answer {number} {result}", flush=True)


def main():
    names = sys.argv[1:]
    ends = [make_end(name, number) for number, name in enumerate(names, 1)]
    wire = Wire([device for _, device in ends])
    print("ready", flush=True)
    wire.run(lambda line: answer(wire, names, line))


main()
