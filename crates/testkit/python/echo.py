"""An HTTP origin that answers with what it saw, so that a test can compare.

GET /            the request as JSON: method, target, headers, body length
GET /stream/N    N chunks, the next one sent when the test asks for it with /next
POST /next       lets the oldest stream go on by one chunk
GET /trailers    a chunked body with a trailer
GET /name        the name given on the command line
GET /drop        closes the connection without an answer
"""

import asyncio
import json
import sys

NAME = sys.argv[1] if len(sys.argv) > 1 else "origin"
STEPS = asyncio.Queue(maxsize=1024)


async def head(reader):
    raw = await reader.readuntil(b"\r\n\r\n")
    lines = raw.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = lines[0].split(" ", 2)
    return method, target, [line.split(": ", 1) for line in lines[1:]]


async def body(reader, headers):
    named = {name.lower(): value for name, value in headers}
    if "content-length" in named:
        return await reader.readexactly(int(named["content-length"])), []
    if named.get("transfer-encoding", "") != "chunked":
        return b"", []
    content = b""
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        if size == 0:
            break
        content += await reader.readexactly(size)
        await reader.readexactly(2)
    trailers = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        trailers.append(line.decode("latin-1").rstrip().split(": ", 1))
    return content, trailers


def plain(content, status="200 OK"):
    start = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
    return f"{start}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def stream(writer, count):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(count):
        await STEPS.get()
        content = f"chunk {number}\n".encode()
        writer.write(b"%x\r\n%s\r\n" % (len(content), content))
        await writer.drain()
    writer.write(b"0\r\n\r\n")


async def answer(writer, method, target, headers, content, trailers):
    if target.startswith("/stream/"):
        await stream(writer, int(target.removeprefix("/stream/")))
    elif target == "/next":
        await STEPS.put(None)
        writer.write(plain(b"{}"))
    elif target == "/trailers":
        writer.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            b"5\r\nhello\r\n0\r\nX-Sum: five\r\n\r\n"
        )
    elif target == "/name":
        writer.write(plain(NAME.encode()))
    elif target == "/drop":
        return False
    else:
        seen = {
            "method": method,
            "target": target,
            "headers": headers,
            "length": len(content),
            "trailers": trailers,
            "name": NAME,
        }
        writer.write(plain(json.dumps(seen).encode()))
    await writer.drain()
    return True


async def serve(reader, writer):
    try:
        while True:
            method, target, headers = await head(reader)
            expect = [v for n, v in headers if n.lower() == "expect"]
            if expect:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await writer.drain()
            content, trailers = await body(reader, headers)
            print(f"request {method} {target}", flush=True)
            if not await answer(writer, method, target, headers, content, trailers):
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"listening on {host}:{port}", flush=True)
    await server.serve_forever()


asyncio.run(main())
