#!/usr/bin/env python3
"""A second implementation of the agent's side of the link protocol.

Written from docs/protocol.md alone, on the `cryptography` package alone.

  peer.py vectors DIR   makes every test vector again and compares
  peer.py mutate DIR    changes each value of the vectors in turn and makes
                        sure that `vectors` notices every change
  peer.py serve --tunnel NAME [--address HOST:PORT] [--body TEXT]
                        joins a running edge, publishes one HTTP tunnel,
                        answers one request, and ends
                        (join string in ADIT_JOIN, PIN in ADIT_PIN)

Exit codes: 0 done, 1 failed, 2 wrong use, 3 refused by the edge.
"""

import argparse
import base64
import copy
import hashlib
import hmac as hmac_module
import json
import os
import pathlib
import select
import socket
import struct
import sys
import time

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

RAW = serialization.Encoding.Raw
RAW_PRIVATE = serialization.PrivateFormat.Raw
RAW_PUBLIC = serialization.PublicFormat.Raw

NAMES = {
    0x01: "HELLO", 0x02: "PIN_WANTED", 0x03: "PIN_PROOF", 0x04: "VERDICT", 0x05: "AUTH_OK",
    0x10: "OPEN_TUNNEL", 0x11: "CLOSE_TUNNEL", 0x12: "TUNNEL_STATUS", 0x13: "INCOMING_CONN",
    0x14: "CHANNELS_WANTED", 0x15: "HEARTBEAT", 0x16: "DRAIN", 0x17: "SUPERSEDED",
    0x18: "STATS", 0x19: "STATS_WANTED", 0x1A: "ERROR", 0x1B: "REKEY", 0x1C: "REKEY_ACK",
    0x1D: "REKEY_DONE", 0x20: "START", 0x21: "ACCEPTED", 0x22: "DATA", 0x23: "FIN",
    0x24: "DONE", 0x25: "RESET", 0x26: "RESET_ACK", 0x27: "PING", 0x28: "PONG",
    0x29: "DATAGRAM", 0x2A: "DATA_CONN_READY", 0x2B: "FORWARD",
}
TYPES = {name: number for number, name in NAMES.items()}
MAX_PAYLOAD = 65_536
MAX_HANDSHAKE_PAYLOAD = 1024
RATCHET = 1 << 20


class Broken(Exception):
    """The other side, or a vector, is not what the page says."""


class Refused(Exception):
    """The edge refused this agent, or its tunnel."""


# --- Conventions -----------------------------------------------------------


def u32(n):
    return struct.pack(">I", n)


def u64(n):
    return struct.pack(">Q", n)


def sha256(data):
    return hashlib.sha256(data).digest()


def mac(key, data):
    return hmac_module.new(key, data, hashlib.sha256).digest()


def extract(salt, ikm):
    return mac(salt, ikm)


def expand(prk, label, context=b""):
    return mac(prk, label.encode() + b"\0" + context + b"\x01")


def x25519(private, public):
    key = X25519PrivateKey.from_private_bytes(private)
    try:
        return key.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise Broken("the other side's key share is weak") from error


def share_of(private):
    key = X25519PrivateKey.from_private_bytes(private)
    return key.public_key().public_bytes(RAW, RAW_PUBLIC)


def public_of(seed):
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return key.public_key().public_bytes(RAW, RAW_PUBLIC)


def sign(seed, data):
    return Ed25519PrivateKey.from_private_bytes(seed).sign(data)


def key_text(public):
    return "ed25519:" + base64.urlsafe_b64encode(public).decode().rstrip("=")


# --- Join string -----------------------------------------------------------


def fields_of(body):
    """The fields of a body as (tag, value) pairs."""
    fields, at = [], 0
    while at < len(body):
        if at + 3 > len(body):
            raise Broken("body is cut short")
        tag, length = struct.unpack_from(">BH", body, at)
        at += 3
        if at + length > len(body):
            raise Broken("body is cut short")
        fields.append((tag, body[at : at + length]))
        at += length
    return fields


def field(tag, value):
    return struct.pack(">BH", tag, len(value)) + value


def one(fields, tag):
    values = [value for known, value in fields if known == tag]
    if len(values) != 1:
        raise Broken(f"field {tag} stands {len(values)} times")
    return values[0]


def number(fields, tag):
    return int.from_bytes(one(fields, tag), "big")


def parse_join(text):
    text = "".join(text.split()).lower()
    if not text.startswith("adit1"):
        raise Broken("a join string begins with adit1")
    encoded = text[5:].upper()
    raw = base64.b32decode(encoded + "=" * (-len(encoded) % 8))
    body, check = raw[:-4], raw[-4:]
    if sha256(body)[:4] != check or body[:1] != b"\x01":
        raise Broken("join string is damaged")
    fields = fields_of(body[1:])
    addresses = [value.decode() for tag, value in fields if tag == 1]
    kind = "token" if any(tag == 4 for tag, _ in fields) else "secret"
    secret = one(fields, 4 if kind == "token" else 3).decode()
    return {"addresses": addresses, "edge": one(fields, 2), "kind": kind, "secret": secret}


def make_join(addresses, edge, kind, secret):
    body = b"\x01" + b"".join(field(1, address.encode()) for address in addresses)
    body += field(2, edge) + field(4 if kind == "token" else 3, secret.encode())
    encoded = base64.b32encode(body + sha256(body)[:4]).decode().rstrip("=").lower()
    return "adit1" + encoded


# --- Secrets and the first message -----------------------------------------


class Secret:
    def __init__(self, text):
        self.bytes = text.encode()
        self.prk = extract(b"adit/1 secret", self.bytes)
        self.id_key = expand(self.prk, "adit/1 secret id")
        self.first_key = expand(self.prk, "adit/1 first message")


def id_at(id_key, epoch):
    return mac(id_key, u64(epoch))[:8]


def first_message(identifier, unix, nonce, share, kind, suites, key, edge):
    head = identifier + u64(unix) + nonce + share + bytes([kind, 1, suites]) + bytes(29)
    return head + mac(key, b"adit first message" + head + edge)


def link_first(secret, unix, nonce, share, suites, edge):
    identifier = id_at(secret.id_key, unix // 600)
    return first_message(identifier, unix, nonce, share, 1, suites, secret.first_key, edge)


CHANNEL, TRUNK = 2, 4  # what a data connection is for


def channel_first(id_key, header_key, unix, random, number_, epoch, edge, kind=CHANNEL):
    share = u64(number_) + u32(epoch) + bytes(20)
    identifier = id_at(id_key, unix // 600)
    return first_message(identifier, unix, random, share, kind, 0, header_key, edge)


# --- Frames ----------------------------------------------------------------


class Direction:
    """One way of one channel."""

    def __init__(self, suite, secret):
        self.suite, self.secret, self.counter = suite, secret, 0
        self.prepare()

    def prepare(self):
        self.key = expand(self.secret, "adit/1 key")
        self.base = expand(self.secret, "adit/1 nonce")[:4]
        self.aead = {1: ChaCha20Poly1305, 2: AESGCM}[self.suite](self.key)

    def nonce(self):
        if self.counter and self.counter % RATCHET == 0:
            self.secret = expand(self.secret, "adit/1 ratchet")
            self.prepare()
        nonce = self.base + u64(self.counter)
        self.counter += 1
        return nonce

    def seal(self, kind, payload=b"", stream=0, flags=0):
        plain = bytes([kind, flags]) + u32(stream) + payload
        length = u32(len(plain) + 16)
        nonce = self.nonce()  # may change the key
        return length + self.aead.encrypt(nonce, plain, length)

    def open(self, frame):
        nonce = self.nonce()  # may change the key
        try:
            plain = self.aead.decrypt(nonce, frame[4:], frame[:4])
        except InvalidTag as error:
            raise Broken("frame does not open") from error
        kind, flags, stream = struct.unpack_from(">BBI", plain)
        if flags:
            raise Broken("frame has flags that version 1 does not send")
        return kind, stream, plain[6:]

    def values(self):
        return {"secret": self.secret.hex(), "key": self.key.hex(), "base": self.base.hex()}


def lz4_length(block, at, nibble):
    """A length of a block, and where what follows it begins."""
    length = nibble
    while nibble == 15:
        length += block[at]
        at += 1
        if block[at - 1] != 255:
            break
    return length, at


def unpack(payload):
    """What a compressed payload stands for."""
    length, block = struct.unpack_from(">I", payload)[0], payload[4:]
    if not len(payload) < length <= MAX_PAYLOAD or not block:
        raise Broken("compressed payload has a length that none has")
    out, at = bytearray(), 0
    while True:
        token = block[at]
        literals, at = lz4_length(block, at + 1, token >> 4)
        if at + literals > len(block) or len(out) + literals > length:
            raise Broken("literals out of bounds")
        out += block[at : at + literals]
        at += literals
        if at == len(block):
            break
        offset = block[at] | block[at + 1] << 8
        count, at = lz4_length(block, at + 2, token & 15)
        if not 0 < offset <= len(out) or len(out) + count + 4 > length:
            raise Broken("copy out of bounds")
        for _ in range(count + 4):
            out.append(out[-offset])
    if len(out) != length:
        raise Broken("block gives another length")
    return bytes(out)


class Frames:
    """Cuts received bytes into frames."""

    def __init__(self):
        self.bytes = b""

    def take(self, max_payload=MAX_PAYLOAD):
        if len(self.bytes) < 4:
            return None
        length = struct.unpack_from(">I", self.bytes)[0]
        if not 22 <= length <= 22 + max_payload:
            raise Broken("frame has a length that frames do not have")
        if len(self.bytes) < 4 + length:
            return None
        frame, self.bytes = self.bytes[: 4 + length], self.bytes[4 + length :]
        return frame


# --- Handshake -------------------------------------------------------------


class Transcript:
    def __init__(self, label="adit/1 link transcript"):
        self.value = sha256(label.encode())

    def add(self, entry):
        self.value = sha256(self.value + u32(len(entry)) + entry)


class Stage:
    """What both sides have after the answer."""

    def __init__(self, first, answer, dh, secret):
        self.transcript = Transcript()
        self.transcript.add(first)
        self.transcript.add(answer)
        self.suite = answer[49]
        self.dh = dh
        self.prk = extract(self.transcript.value, dh + secret.bytes)
        self.edge_finished = expand(self.prk, "adit/1 edge finished")
        self.agent_finished = expand(self.prk, "adit/1 agent finished")
        self.master = expand(self.prk, "adit/1 master")
        self.to_edge = self.direction("adit/1 handshake agent to edge")
        self.to_agent = self.direction("adit/1 handshake edge to agent")

    def direction(self, label):
        return Direction(self.suite, expand(self.prk, label))

    def signed(self, side, public):
        return f"adit/1 {side} signature".encode() + b"\0" + self.transcript.value + public

    def finished(self, side, unfinished):
        key = self.edge_finished if side == "edge" else self.agent_finished
        return mac(key, self.transcript.value + unfinished)

    def hello(self, side, seed, tail=b""):
        public = public_of(seed)
        body = field(1, public) + field(2, sign(seed, self.signed(side, public))) + tail
        return body + field(5, self.finished(side, body))

    def check_hello(self, side, body):
        fields = fields_of(body)
        if not fields or fields[-1][0] != 5 or len(fields[-1][1]) != 32:
            raise Broken("finished is not the last field")
        public = one(fields, 1)
        if not hmac_module.compare_digest(one(fields, 5), self.finished(side, body[:-35])):
            raise Broken("the handshake was altered on its way")
        try:
            key = Ed25519PublicKey.from_public_bytes(public)
            key.verify(one(fields, 2), self.signed(side, public))
        except InvalidSignature as error:
            raise Broken("signature does not verify") from error
        return public

    def add(self, kind, body):
        self.transcript.add(bytes([kind]) + body)

    def pin_key(self):
        return expand(extract(self.transcript.value, self.master), "adit/1 pin")

    def session(self):
        return Session(self.suite, extract(self.transcript.value, self.master))


class Session:
    """The keys of a live link."""

    def __init__(self, suite, prk2):
        self.suite, self.prk2, self.epoch = suite, prk2, 0
        self.exporter = expand(prk2, "adit/1 exporter")
        self.id_key = expand(prk2, "adit/1 session id")
        self.to_edge = Direction(suite, expand(prk2, "adit/1 control agent to edge"))
        self.to_agent = Direction(suite, expand(prk2, "adit/1 control edge to agent"))

    def advance(self, dh, agent_share, edge_share):
        """The next epoch; gives its first key and both control directions."""
        self.epoch += 1
        prk = extract(self.exporter, dh)
        context = u32(self.epoch) + agent_share + edge_share
        self.exporter = expand(prk, "adit/1 exporter", context)
        labels = ("adit/1 control agent to edge", "adit/1 control edge to agent")
        pair = [Direction(self.suite, expand(prk, label, context)) for label in labels]
        return prk, *pair

    def header_key(self):
        return expand(self.exporter, "adit/1 channel header")

    def channel_prk(self, agent_random, edge_random):
        return extract(agent_random + edge_random, self.exporter)

    def channel(self, number_, agent_random, edge_random):
        prk = self.channel_prk(agent_random, edge_random)
        context = u64(number_) + u32(self.epoch)
        labels = ("adit/1 channel agent to edge", "adit/1 channel edge to agent")
        return [Direction(self.suite, expand(prk, label, context)) for label in labels]

    def line(self, number_, agent_random, edge_random, line):
        prk = self.channel_prk(agent_random, edge_random)
        for before in range(1, line):
            prk = expand(prk, "adit/1 next line", u64(number_) + u32(self.epoch) + u32(before))
        context = u64(number_) + u32(self.epoch) + u32(line)
        labels = ("adit/1 line agent to edge", "adit/1 line edge to agent")
        return [Direction(self.suite, expand(prk, label, context)) for label in labels]


PIECES = {"DATA": 1, "CLOSE": 2, "CREDIT": 3, "PING": 4, "PONG": 5, "OPEN": 6}


def piece(name, line=0, count=0, payload=b""):
    """One piece on a trunk."""
    return struct.pack(">BBHI", PIECES[name], 0, count or len(payload), line) + payload


class PeerStage:
    """What two agents in a private tunnel have after the answer."""

    def __init__(self, name, first, answer, dh):
        self.transcript = Transcript("adit/1 peer transcript")
        for entry in (name.encode(), first, answer):
            self.transcript.add(entry)
        self.suite = answer[49]
        self.prk = extract(self.transcript.value, dh)
        self.keys = {side: expand(self.prk, f"adit/1 peer {side} finished")
                     for side in ("forwarder", "target")}
        self.master = expand(self.prk, "adit/1 peer master")
        self.to_target, self.to_forwarder = self.ways(self.prk, "handshake ")

    def ways(self, prk, kind=""):
        """Both directions: to the target, to the forwarder."""
        labels = (f"adit/1 peer {kind}forwarder to target",
                  f"adit/1 peer {kind}target to forwarder")
        return [Direction(self.suite, expand(prk, label)) for label in labels]

    def signed(self, side, public):
        label = f"adit/1 peer {side} signature".encode()
        return label + b"\0" + self.transcript.value + public

    def hello(self, side, seed):
        public = public_of(seed)
        body = field(1, public) + field(2, sign(seed, self.signed(side, public)))
        return body + field(5, mac(self.keys[side], self.transcript.value + body))

    def session(self):
        """The stream's first key and both of its directions."""
        prk2 = extract(self.transcript.value, self.master)
        return prk2, *self.ways(prk2)


# --- Vectors ---------------------------------------------------------------


def shown(direction, kind, body, stream=0):
    return {"type": kind, "body": body.hex(), "frame": direction.seal(kind, body, stream).hex()}


def make_secret(inputs):
    secret, epoch = Secret(inputs["secret"]), inputs["unix"] // 600
    ids = [id_at(secret.id_key, e).hex() for e in (epoch - 1, epoch, epoch + 1)]
    made = {"prk": secret.prk.hex(), "id_key": secret.id_key.hex()}
    return secret, made | {"first_key": secret.first_key.hex(), "ids": ids}


def check_private(private):
    """Vectors give X25519 private keys as they are used: clamped."""
    if len(private) != 32 or private[0] & 7 or private[31] & 0xC0 != 0x40:
        raise Broken("private key is not in its clamped form")


def make_handshake(inputs, secret):
    raw = {name: bytes.fromhex(value) for name, value in inputs.items()
           if name.endswith(("seed", "instance", "ephemeral", "nonce")) or name == "welcome"}
    suite, edge = inputs["suite"], public_of(raw["edge_seed"])
    check_private(raw["agent_ephemeral"])
    check_private(raw["edge_ephemeral"])
    agent_share, edge_share = share_of(raw["agent_ephemeral"]), share_of(raw["edge_ephemeral"])
    first = link_first(secret, inputs["unix"], raw["agent_nonce"], agent_share,
                       inputs["agent_suites"], edge)
    answer = edge_share + raw["edge_nonce"] + bytes([1, suite])
    dh = x25519(raw["agent_ephemeral"], edge_share)
    if dh != x25519(raw["edge_ephemeral"], agent_share):
        raise Broken("both sides of the exchange differ")
    stage = Stage(first, answer, dh, secret)
    made = {
        "first_message": first.hex(), "agent_share": agent_share.hex(),
        "edge_share": edge_share.hex(), "answer": answer.hex(), "dh": dh.hex(),
        "prk": stage.prk.hex(), "agent_to_edge": stage.to_edge.values(),
        "edge_to_agent": stage.to_agent.values(), "master": stage.master.hex(),
        "edge_finished": stage.edge_finished.hex(), "agent_finished": stage.agent_finished.hex(),
        "transcript": [stage.transcript.value.hex()],
    }

    def add(name, direction, body):
        made[name] = shown(direction, TYPES[name.upper()] if name.upper() in TYPES else 1, body)
        stage.add(made[name]["type"], body)
        made["transcript"].append(stage.transcript.value.hex())

    body = stage.hello("edge", raw["edge_seed"])
    if stage.check_hello("edge", body) != edge:
        raise Broken("edge proves another key")
    add("edge_hello", stage.to_agent, body)
    tail = field(3, raw["agent_instance"]) + field(4, inputs["agent_version"].encode())
    add("agent_hello", stage.to_edge, stage.hello("agent", raw["agent_seed"], tail))
    add("pin_wanted", stage.to_agent, b"")
    pin_key = stage.pin_key()
    made["pin_key"] = pin_key.hex()
    add("pin_proof", stage.to_edge, mac(pin_key, inputs["pin"].encode()))
    made["verdict"] = shown(stage.to_agent, TYPES["VERDICT"], b"\x01")
    session = stage.session()
    made |= {
        "prk2": session.prk2.hex(), "exporter": session.exporter.hex(),
        "session_id_key": session.id_key.hex(),
        "control_agent_to_edge": session.to_edge.values(),
        "control_edge_to_agent": session.to_agent.values(),
        "auth_ok": shown(session.to_agent, TYPES["AUTH_OK"], raw["welcome"]),
    }
    return made, session, edge


def make_channel(inputs, session, edge, row):
    if row["epoch"] != session.epoch:
        raise Broken("channel of another epoch")
    agent_random, edge_random = (bytes.fromhex(row[f"{side}_random"]) for side in ("agent", "edge"))
    header = channel_first(session.id_key, session.header_key(), inputs["unix"], agent_random,
                           row["number"], row["epoch"], edge)
    if len(agent_random) != 16 or len(edge_random) != 16:
        raise Broken("both sides give 16 random bytes")
    to_edge, to_agent = session.channel(row["number"], agent_random, edge_random)
    made = {
        "header_key": session.header_key().hex(), "header": header.hex(),
        "prk": session.channel_prk(agent_random, edge_random).hex(),
        "agent_to_edge": to_edge.values(), "edge_to_agent": to_agent.values(),
    }

    def data(direction):
        payload = bytes.fromhex(inputs["payload"])
        return direction.seal(TYPES["DATA"], payload, inputs["stream"]).hex()

    made["agent_frames"] = [data(to_edge), data(to_edge)]
    made["edge_frames"] = [data(to_agent), data(to_agent)]
    to_edge.counter = RATCHET - 1
    before, after = data(to_edge), data(to_edge)
    made["ratchet"] = {"last_frame_before": before, "first_frame_after": after,
                       "after": to_edge.values()}
    made["trunk"] = make_trunk(inputs, session, edge, (row["number"], agent_random, edge_random))
    return made


def make_trunk(inputs, session, edge, channel):
    number_, agent_random, _ = channel
    header = channel_first(session.id_key, session.header_key(), inputs["unix"], agent_random,
                           number_, session.epoch, edge, TRUNK)
    line = 3
    to_edge, to_agent = session.line(*channel, line)
    made = {"header": header.hex(), "line": line,
            "agent_to_edge": to_edge.values(), "edge_to_agent": to_agent.values()}
    payload = bytes.fromhex(inputs["payload"])
    up, down = (way.seal(TYPES["DATA"], payload, inputs["stream"]) for way in (to_edge, to_agent))
    pieces = (piece("OPEN", line) + piece("PING") + piece("PONG") + piece("CREDIT", line, 64)
              + piece("DATA", line, payload=up) + piece("CLOSE", line))
    return made | {"agent_frame": up.hex(), "edge_frame": down.hex(), "pieces": pieces.hex()}


def make_epoch(inputs, session):
    frames = []

    def say(side, direction, kind, body):
        frames.append({"from": side, "frame": direction.seal(kind, body).hex()})

    def talk():
        for side, direction in (("agent", session.to_edge), ("edge", session.to_agent)):
            message = inputs[f"{side}_message"]
            say(side, direction, message["type"], bytes.fromhex(message["body"]))

    talk()
    mine, theirs = (bytes.fromhex(inputs[f"rekey_{side}_ephemeral"]) for side in ("agent", "edge"))
    check_private(mine)
    check_private(theirs)
    a, b = share_of(mine), share_of(theirs)
    epoch = field(1, u32(session.epoch + 1))
    say("agent", session.to_edge, TYPES["REKEY"], epoch + field(2, a))
    say("edge", session.to_agent, TYPES["REKEY_ACK"], epoch + field(2, b))
    say("agent", session.to_edge, TYPES["REKEY_DONE"], epoch)
    dh = x25519(mine, b)
    prk, session.to_edge, session.to_agent = session.advance(dh, a, b)
    made = {
        "dh": dh.hex(), "prk": prk.hex(), "exporter": session.exporter.hex(),
        "control_agent_to_edge": session.to_edge.values(),
        "control_edge_to_agent": session.to_agent.values(), "frames": frames,
    }
    talk()
    return made


def make_link(inputs):
    secret, made_secret = make_secret(inputs)
    handshake, session, edge = make_handshake(inputs, secret)
    rows = inputs["channels"]
    first = make_channel(inputs, session, edge, rows[0])
    epoch = make_epoch(inputs, session)
    later = [make_channel(inputs, session, edge, row) for row in rows[1:]]
    return {"inputs": inputs, "secret": made_secret, "handshake": handshake,
            "epoch_1": epoch, "channels": [first, *later]}


def make_body(fields):
    body = b""
    for tag, kind, value in fields:
        if kind in ("u8", "u16", "u32", "u64"):
            body += field(tag, value.to_bytes(int(kind[1:]) // 8, "big"))
        elif kind == "text":
            body += field(tag, value.encode())
        elif kind == "bytes":
            body += field(tag, bytes.fromhex(value))
        elif kind == "fields":
            body += field(tag, make_body(value))
        else:
            raise Broken(f"unknown field type {kind}")
    return body


def make_bodies(rows):
    return [{"name": NAMES[row["type"]], "type": row["type"], "fields": row["fields"],
             "body": make_body(row["fields"]).hex()} for row in rows]


def make_joins(rows):
    made = []
    for row in rows:
        parsed = parse_join(row["text"])
        text = make_join(parsed["addresses"], parsed["edge"], parsed["kind"], parsed["secret"])
        made.append(parsed | {"edge": parsed["edge"].hex(), "edge_text": key_text(parsed["edge"]),
                              "text": text})
    return made


def make_compressed(rows):
    made = []
    for row in rows:
        payload, secret = bytes.fromhex(row["payload"]), bytes.fromhex(row["secret"])
        if len(secret) != 32:
            raise Broken("a direction's secret has 32 bytes")
        try:
            plain = unpack(payload).hex()
        except (Broken, IndexError, struct.error):
            plain = ""
        frame = Direction(1, secret).seal(TYPES["DATA"], payload, 1, flags=1)
        made.append({"payload": payload.hex(), "secret": secret.hex(), "plain": plain,
                     "frame": frame.hex()})
    return made


def make_peer_stream(stage, inputs):
    prk2, to_target, to_forwarder = stage.session()
    made = {"prk": prk2.hex(), "forwarder_to_target": to_target.values(),
            "target_to_forwarder": to_forwarder.values()}
    for side, direction in (("forwarder", to_target), ("target", to_forwarder)):
        payload = bytes.fromhex(inputs[f"{side}_payload"])
        made[f"{side}_frames"] = [direction.seal(TYPES["DATA"], payload).hex(),
                                  direction.seal(TYPES["FIN"]).hex()]
    return made


def make_peer(inputs):
    raw = {name: bytes.fromhex(value) for name, value in inputs.items()
           if name.endswith(("seed", "ephemeral", "nonce"))}
    mine, theirs = raw["forwarder_ephemeral"], raw["target_ephemeral"]
    check_private(mine)
    check_private(theirs)
    first = bytes([1, inputs["forwarder_suites"], 0, 0]) + raw["forwarder_nonce"] + share_of(mine)
    answer = share_of(theirs) + raw["target_nonce"] + bytes([1, inputs["suite"]])
    if len(first) != 52 or len(answer) != 50:
        raise Broken("a message has a length that it does not have")
    dh = x25519(mine, share_of(theirs))
    if dh != x25519(theirs, share_of(mine)):
        raise Broken("both sides of the exchange differ")
    stage = PeerStage(inputs["name"], first, answer, dh)
    made = {
        "inputs": inputs, "first": first.hex(), "answer": answer.hex(), "dh": dh.hex(),
        "prk": stage.prk.hex(), "forwarder_to_target": stage.to_target.values(),
        "target_to_forwarder": stage.to_forwarder.values(),
        "forwarder_finished": stage.keys["forwarder"].hex(),
        "target_finished": stage.keys["target"].hex(), "master": stage.master.hex(),
        "transcript": [stage.transcript.value.hex()],
    }
    # The target tells first who it is.
    for side, direction in (("target", stage.to_forwarder), ("forwarder", stage.to_target)):
        body = stage.hello(side, raw[f"{side}_seed"])
        made[f"{side}_hello"] = shown(direction, TYPES["HELLO"], body)
        stage.transcript.add(bytes([TYPES["HELLO"]]) + body)
        made["transcript"].append(stage.transcript.value.hex())
    made["verdict"] = shown(stage.to_forwarder, TYPES["VERDICT"], b"\x01")
    return made | {"stream": make_peer_stream(stage, inputs)}


def make_knock(inputs):
    secret, edge = Secret(inputs["secret"]), bytes.fromhex(inputs["edge"])
    identifier = id_at(secret.id_key, inputs["epoch"])
    head = identifier + bytes.fromhex(inputs["random"])
    if len(head) != 12 or len(edge) != 32:
        raise Broken("a part of a knock has another length")
    tag = mac(secret.first_key, b"adit quic knock" + head + edge)
    return {"inputs": inputs, "id": identifier.hex(), "mac": tag.hex(),
            "knock": (head + tag[:8]).hex()}


def make_datagrams(kept):
    inputs = kept["inputs"]
    prk = bytes.fromhex(inputs["channel_prk"])
    if len(prk) != 32:
        raise Broken("a key has another length")
    context = u64(inputs["number"]) + u32(inputs["epoch"])
    ways = {side: Direction(inputs["suite"], expand(prk, f"adit/1 datagram {way}", context))
            for side, way in (("agent", "agent to edge"), ("edge", "edge to agent"))}
    rows, numbers = [], {}
    for row in kept["datagrams"]:
        side, flow = row["from"], row["flow"]
        datagram = numbers.get((side, flow), 0)
        numbers[side, flow] = datagram + 1
        head = u32(inputs["index"]) + u32(flow) + u32(datagram)
        way, plain = ways[side], bytes.fromhex(row["plain"])
        sealed = head + way.aead.encrypt(way.base + head[4:], plain, head)
        rows.append({"from": side, "flow": flow, "datagram": datagram, "plain": plain.hex(),
                     "sealed": sealed.hex()})
    return {"inputs": inputs, "agent_to_edge": ways["agent"].values(),
            "edge_to_agent": ways["edge"].values(), "datagrams": rows}


def make_quic(kept):
    return {"knock": make_knock(kept["knock"]["inputs"]),
            "channels": [make_datagrams(row) for row in kept["channels"]]}


MAKERS = {
    "quic.json": make_quic,
    "peers.json": lambda kept: [make_peer(row["inputs"]) for row in kept],
    "compressed.json": make_compressed,
    "link-chacha20-poly1305.json": lambda kept: make_link(kept["inputs"]),
    "link-aes-256-gcm.json": lambda kept: make_link(kept["inputs"]),
    "bodies.json": make_bodies,
    "join.json": make_joins,
}


def same(name, kept):
    """Whether a file is exactly what the page makes of its inputs."""
    try:
        return MAKERS[name](kept) == kept
    except (Broken, ValueError, KeyError, TypeError, OverflowError, AttributeError,
            struct.error, IndexError):
        return False


def load(folder):
    found = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    if set(found) != set(MAKERS):
        raise Broken(f"vector files are {sorted(found)}, not {sorted(MAKERS)}")
    return found


def check_vectors(folder):
    good = True
    for name, kept in load(folder).items():
        fits = same(name, kept)
        print(f"{name}: {'ok' if fits else 'DIFFERS'}")
        good = good and fits
    return 0 if good else 1


def leaves(value, path=()):
    """Every string and number with the way to it."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, (dict, list)):
            yield from leaves(inner, (*path, key))
        else:
            yield (*path, key), inner


def changed(value, every):
    """The value with one thing changed, in several places or in every one."""
    if isinstance(value, int):
        yield value + 1
        yield value ^ 1
        return
    step = 1 if every else max(1, len(value) // 7)
    for at in {*range(0, len(value), step), len(value) - 1} if value else ():
        other = "1" if value[at] == "0" else "0"
        yield value[:at] + other + value[at + 1 :]
    yield value + "00"
    if len(value) >= 2:
        yield value[:-2]


def mutate_vectors(folder, every):
    tried = missed = 0
    for name, kept in load(folder).items():
        if not same(name, kept):
            raise Broken(f"{name} differs before any change")
        for path, value in list(leaves(kept)):
            for other in changed(value, every):
                if other == value:
                    continue
                bent = copy.deepcopy(kept)
                at = bent
                for key in path[:-1]:
                    at = at[key]
                at[path[-1]] = other
                tried += 1
                if same(name, bent):
                    missed += 1
                    print(f"{name}: {'/'.join(map(str, path))} = {other!r} was not noticed")
    print(f"{tried} changes tried, {missed} not noticed")
    return 1 if missed or tried < 500 else 0


# --- A live agent ----------------------------------------------------------


class Wire:
    """A socket with a deadline."""

    def __init__(self, address, deadline):
        host, _, port = address.rpartition(":")
        self.deadline = deadline
        left = max(0.1, deadline - time.monotonic())
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=left)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.frames = Frames()

    def fileno(self):
        return self.socket.fileno()

    def send(self, data):
        self.socket.settimeout(max(0.1, self.deadline - time.monotonic()))
        self.socket.sendall(data)

    def receive(self):
        self.socket.settimeout(max(0.1, self.deadline - time.monotonic()))
        data = self.socket.recv(65_536)
        if not data:
            raise Broken("the edge closed the connection")
        self.frames.bytes += data

    def exactly(self, count):
        while len(self.frames.bytes) < count:
            self.receive()
        data, self.frames.bytes = self.frames.bytes[:count], self.frames.bytes[count:]
        return data

    def frame(self, max_payload):
        while True:
            frame = self.frames.take(max_payload)
            if frame:
                return frame
            self.receive()


class Agent:
    def __init__(self, join, address, pin, deadline):
        self.join, self.pin, self.deadline = join, pin, deadline
        self.address = address or join["addresses"][0]
        self.secret = Secret(join["secret"])
        self.seed = Ed25519PrivateKey.generate().private_bytes(
            RAW, RAW_PRIVATE, serialization.NoEncryption())
        self.channels = []
        self.numbers = 0
        self.served = False

    def expect(self, direction, *names, max_payload=MAX_HANDSHAKE_PAYLOAD):
        kind, stream, body = direction.open(self.control.frame(max_payload))
        if NAMES.get(kind) not in names or stream:
            raise Broken(f"{NAMES.get(kind, kind)} in place of {' or '.join(names)}")
        return kind, body

    def shake_hands(self):
        self.control = Wire(self.address, self.deadline)
        ephemeral = os.urandom(32)
        first = link_first(self.secret, int(time.time()), os.urandom(16), share_of(ephemeral), 3,
                           self.join["edge"])
        self.control.send(first)
        answer = self.control.exactly(50)
        if answer[48] != 1 or answer[49] not in (1, 2):
            raise Broken("no common version or suite")
        stage = Stage(first, answer, x25519(ephemeral, answer[:32]), self.secret)
        kind, body = self.expect(stage.to_agent, "HELLO")
        presented = stage.check_hello("edge", body)
        if presented != self.join["edge"]:
            raise Broken(f"expected {key_text(self.join['edge'])}, got {key_text(presented)}")
        stage.add(kind, body)
        tail = field(3, os.urandom(16)) + field(4, b"peer.py")
        hello = stage.hello("agent", self.seed, tail)
        self.control.send(stage.to_edge.seal(TYPES["HELLO"], hello))
        stage.add(TYPES["HELLO"], hello)
        kind, body = self.expect(stage.to_agent, "PIN_WANTED", "VERDICT")
        if kind == TYPES["PIN_WANTED"]:
            if self.pin is None:
                raise Refused("the edge wants its PIN: set ADIT_PIN")
            stage.add(kind, body)
            proof = mac(stage.pin_key(), self.pin.encode())
            self.control.send(stage.to_edge.seal(TYPES["PIN_PROOF"], proof))
            stage.add(TYPES["PIN_PROOF"], proof)
            kind, body = self.expect(stage.to_agent, "VERDICT")
        if body == b"\x02":
            raise Refused("the edge has as many agents as it takes")
        if body != b"\x01":
            raise Refused("the edge refused this agent")
        self.session = stage.session()
        _, body = self.expect(self.session.to_agent, "AUTH_OK", max_payload=MAX_PAYLOAD)
        self.welcome = fields_of(body)
        print(f"live, link {number(self.welcome, 1)}", flush=True)

    def say(self, name, *fields):
        body = b"".join(field(tag, value) for tag, value in fields)
        self.control.send(self.session.to_edge.seal(TYPES[name], body))

    def open_tunnel(self, name, target):
        self.say("OPEN_TUNNEL", (1, u32(1)), (2, name.encode()), (3, b"\x01"), (4, b"\0"),
                 (7, target.encode()))

    def dial_channel(self, conn=None):
        wire, random = Wire(self.address, self.deadline), os.urandom(16)
        number_ = self.numbers
        self.numbers += 1
        session = self.session
        wire.send(channel_first(session.id_key, session.header_key(), int(time.time()), random,
                                number_, session.epoch, self.join["edge"]))
        pair = session.channel(number_, random, wire.exactly(16))
        channel = Channel(wire, *pair)
        if conn is not None:
            channel.say("DATA_CONN_READY", field(1, conn))
        self.channels.append(channel)

    def on_control(self, kind, body):
        name, fields = NAMES.get(kind), fields_of(body)
        if name == "HEARTBEAT":
            if not any(tag == 2 for tag, _ in fields):
                self.say("HEARTBEAT", (1, u64(0)), (2, one(fields, 1)))
        elif name == "TUNNEL_STATUS":
            if number(fields, 2) != 1:
                text = one(fields, 5).decode()
                raise Refused(f"the edge did not open the tunnel: {text}")
            print(f"tunnel {one(fields, 3).decode()}", flush=True)
            if not self.channels:
                self.dial_channel()
        elif name == "INCOMING_CONN":
            self.dial_channel(one(fields, 2))
        elif name in ("SUPERSEDED", "DRAIN", "ERROR"):
            raise Broken(f"the edge says {name}")
        elif name not in ("CHANNELS_WANTED", "STATS", "STATS_WANTED"):
            raise Broken(f"unexpected {name or kind}")

    def serve_one(self, answer):
        """Until one request is answered and its stream has ended in order."""
        while True:
            while self.handle_frames(answer):
                pass
            done = next((c for c in self.channels if c.finished), None)
            if done:
                return
            left = self.deadline - time.monotonic()
            wires = [self.control, *(c.wire for c in self.channels)]
            ready, _, _ = select.select(wires, [], [], max(0, left))
            if not ready:
                raise Broken("nothing came in time")
            for wire in ready:
                wire.receive()

    def handle_frames(self, answer):
        """Handles what has arrived; false when there was nothing. A channel that
        is opened by it may hold frames already, which no select would tell."""
        for channel in self.channels:
            channel.answer = answer
        handled = False
        for wire, handle in self.sources():
            while frame := wire.frames.take():
                handle(frame)
                handled = True
        return handled

    def sources(self):
        def control(frame):
            kind, stream, body = self.session.to_agent.open(frame)
            if stream:
                raise Broken("a control frame of a stream")
            self.on_control(kind, body)

        return [(self.control, control), *((c.wire, c.on_frame) for c in list(self.channels))]


class Channel:
    def __init__(self, wire, to_edge, to_agent):
        self.wire, self.to_edge, self.to_agent = wire, to_edge, to_agent
        self.stream, self.request, self.answer = 0, b"", b""
        self.state = "idle"
        self.fin = self.finished = False

    def say(self, name, payload=b""):
        self.wire.send(self.to_edge.seal(TYPES[name], payload, self.stream))

    def on_frame(self, frame):
        kind, stream, body = self.to_agent.open(frame)
        name = NAMES.get(kind)
        if name == "PING":
            self.say("PONG")
        elif name == "START" and self.state == "idle" and stream == self.stream + 1:
            self.stream, self.state = stream, "open"
            fields = fields_of(body)
            if number(fields, 1) != 1 or len(one(fields, 3)) not in (6, 18):
                raise Broken("START names another tunnel or no visitor")
            self.say("ACCEPTED")
        elif stream != self.stream:
            raise Broken("a frame of another stream")
        elif name == "DATA" and not self.fin:
            self.request += body
            self.try_answer()
        elif name == "FIN" and not self.fin:
            self.fin = True
            if self.state != "answered":
                raise Broken("the request ended before it was whole")
            self.say("DONE")
        elif name == "DONE" and self.fin:
            self.finished, self.state = True, "idle"
        else:
            raise Broken(f"unexpected {name or kind} on a data channel")

    def try_answer(self):
        head, end, _ = self.request.partition(b"\r\n\r\n")
        if self.state != "open" or not end:
            return
        print(head.split(b"\r\n")[0].decode("latin-1"), flush=True)
        length = str(len(self.answer)).encode()
        self.say("DATA", b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: "
                 + length + b"\r\nConnection: close\r\n\r\n" + self.answer)
        self.say("FIN")
        self.state = "answered"


def serve(args):
    if "ADIT_JOIN" not in os.environ:
        print("set ADIT_JOIN to a join string", file=sys.stderr)
        return 2
    join = parse_join(os.environ["ADIT_JOIN"])
    deadline = time.monotonic() + args.seconds
    agent = Agent(join, args.address, os.environ.get("ADIT_PIN"), deadline)
    agent.shake_hands()
    agent.open_tunnel(args.tunnel, "peer.py")
    agent.serve_one(args.body.encode())
    print("served one request", flush=True)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("vectors").add_argument("folder", type=pathlib.Path)
    mutate = commands.add_parser("mutate")
    mutate.add_argument("folder", type=pathlib.Path)
    mutate.add_argument("--every", action="store_true", help="every character, not a sample")
    live = commands.add_parser("serve")
    live.add_argument("--tunnel", required=True)
    live.add_argument("--address", help="in place of the join string's first")
    live.add_argument("--body", default="hello from another implementation\n")
    live.add_argument("--seconds", type=float, default=30.0, help="give up after this long")
    args = parser.parse_args()
    try:
        if args.command == "vectors":
            return check_vectors(args.folder)
        if args.command == "mutate":
            return mutate_vectors(args.folder, args.every)
        return serve(args)
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)
        return 3
    except (Broken, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
