"""An HTTP/2 client and server on the library h2, which refuses what RFC 9113
does not allow: h2peer.py server PORT, or h2peer.py client ADDRESS."""

import hashlib
import socket
import sys
import threading

import h2.config
import h2.connection
import h2.events
import h2.exceptions

BODY = b"0123456789abcdef" * 6000  # more than the first windows hold
STREAMS = 20


class Peer:
    """A connection with what each stream has yet to send."""

    def __init__(self, sock, client):
        self.sock = sock
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding="utf-8"))
        self.left = {}  # stream: (body, trailers)
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.sock.sendall(data)

    def push(self):
        """Sends as much as the windows allow."""
        for stream, (body, trailers) in list(self.left.items()):
            while body:
                n = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(body))
                if n <= 0:
                    break
                self.h2.send_data(stream, body[:n])
                body = body[n:]
            self.left[stream] = (body, trailers)
            if not body:
                self.h2.send_headers(stream, trailers, end_stream=True)
                del self.left[stream]
        self.flush()

    def events(self):
        """Yields what comes until the connection ends; data is acknowledged."""
        while True:
            data = self.sock.recv(65536)
            if not data:
                return
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamReset):
                    self.left.pop(event.stream_id, None)
                yield event
            self.push()


def serve_one(sock):
    peer = Peer(sock, client=False)
    got = {}
    for event in peer.events():
        if isinstance(event, h2.events.RequestReceived):
            fields = dict(event.headers)
            got[event.stream_id] = [fields, hashlib.sha256(), b"", ""]
            if fields[":path"] != "/silent":  # h2 does not take one that crosses a reset
                peer.h2.send_headers(event.stream_id, [(":status", "103"), ("link", "</a>; rel=preload")])
        elif isinstance(event, h2.events.DataReceived):
            got[event.stream_id][1].update(event.data)
            got[event.stream_id][2] += event.data
        elif isinstance(event, h2.events.TrailersReceived):
            got[event.stream_id][3] = dict(event.headers).get("x-sent", "")
        elif isinstance(event, h2.events.StreamEnded):
            fields, sum_, body, sent = got.pop(event.stream_id)
            if fields[":path"] == "/silent":
                continue
            peer.h2.send_headers(event.stream_id, [(":status", "200"), ("x-method", fields[":method"]), ("x-path", fields[":path"])])
            peer.left[event.stream_id] = (body, [("x-sum", sum_.hexdigest()), ("x-got", sent)])
        elif isinstance(event, h2.events.ConnectionTerminated):
            if event.error_code:
                print("GOAWAY", event.error_code, event.additional_data, flush=True)


def serve(port):
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        sock, _ = listener.accept()

        def run(sock=sock):
            try:
                serve_one(sock)
            except h2.exceptions.ProtocolError as e:
                print("PROTOCOL ERROR:", repr(e), flush=True)
            except OSError:
                pass
            sock.close()

        threading.Thread(target=run, daemon=True).start()


def call(address):
    host, port = address.rsplit(":", 1)
    peer = Peer(socket.create_connection((host, int(port)), timeout=20), client=True)
    fields = [(":scheme", "http"), (":authority", address), ("te", "trailers")]
    streams = []
    for _ in range(STREAMS):
        stream = peer.h2.get_next_available_stream_id()
        peer.h2.send_headers(stream, [(":method", "POST"), (":path", "/echo")] + fields)
        peer.left[stream] = (BODY, [("x-sent", str(stream))])
        streams.append(stream)
    silent = peer.h2.get_next_available_stream_id()
    peer.h2.send_headers(silent, [(":method", "GET"), (":path", "/silent")] + fields, end_stream=True)
    peer.h2.ping(b"are you?")
    peer.push()
    peer.h2.reset_stream(silent, 8)
    peer.flush()
    bodies, hints, trailers, ended, pong = {}, 0, {}, set(), False
    for event in peer.events():
        stream = getattr(event, "stream_id", None)
        if isinstance(event, h2.events.InformationalResponseReceived):
            hints += 1
        elif isinstance(event, h2.events.DataReceived):
            bodies[stream] = bodies.get(stream, b"") + event.data
        elif isinstance(event, h2.events.TrailersReceived):
            trailers[stream] = dict(event.headers)
        elif isinstance(event, h2.events.StreamReset):
            sys.exit("stream %d was reset: %s" % (stream, event.error_code))
        elif isinstance(event, h2.events.PingAckReceived):
            pong = True
        elif isinstance(event, h2.events.StreamEnded):
            ended.add(stream)
        elif isinstance(event, h2.events.ConnectionTerminated):
            sys.exit("GOAWAY %s %s" % (event.error_code, event.additional_data))
        if len(ended) == len(streams) and pong:
            break
    for stream in streams:
        want = {"x-sum": hashlib.sha256(BODY).hexdigest(), "x-got": str(stream)}
        if bodies.get(stream) != BODY or trailers.get(stream) != want:
            sys.exit("stream %d: %d bytes, trailers %s" % (stream, len(bodies.get(stream, b"")), trailers.get(stream)))
    if hints < STREAMS:
        sys.exit("%d early hints" % hints)
    peer.h2.close_connection()
    peer.flush()
    print("well")


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve(int(sys.argv[2]))
    else:
        call(sys.argv[2])
