"""The PyPI package `pusher`, as a Python backend uses it, against the real binary."""

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from base64 import b64encode, b64decode
from hashlib import sha1
from pathlib import Path

import pusher
import pusher.errors
from pusher.http import Request
from pusher.pusher_client import PusherClient

ROOT = Path(__file__).resolve().parents[3]
BINARY = os.environ.get("HERALD_BINARY") or Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "debug" / "herald"
# The library takes app ids of digits only.
APP = {"app_id": "7", "key": "app-key", "secret": "app-secret"}
DEADLINE = 10


class Herald:
    """The server on a free port, until `stop`."""

    def __init__(self, **more):
        self.directory = tempfile.TemporaryDirectory(prefix="herald-")
        environment = {name: value for name, value in os.environ.items() if not re.match("(HERALD|PUSHER|SOKETI|REVERB)_", name)}
        environment.update(HERALD_LISTEN="127.0.0.1:0", HERALD_METRICS_LISTEN="off", HERALD_DATA_DIR=self.directory.name,
                           HERALD_APP_ID=APP["app_id"], HERALD_APP_KEY=APP["key"], HERALD_APP_SECRET=APP["secret"], **more)
        self.process = subprocess.Popen([BINARY], cwd=self.directory.name, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        timer = threading.Timer(DEADLINE, self.process.kill)
        timer.start()
        said = ""
        for line in self.process.stdout:
            said += line
            if found := re.match(r"listening on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                break
        timer.cancel()
        if not hasattr(self, "port"):
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.directory.cleanup()
            raise RuntimeError(f"herald did not say where it listens, but:\n{said}")
        self.drain = threading.Thread(target=self.process.stdout.read, daemon=True)
        self.drain.start()

    def stop(self):
        # Two signals: the second one ends it at once.
        self.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.drain.join(DEADLINE)
        self.process.stdout.close()
        self.directory.cleanup()


class Subscriber:
    """The smallest WebSocket client that a test of a backend library needs: text frames up to 64 KiB."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self.stream = self.socket.makefile("rb")
        key = b64encode(os.urandom(16)).decode()
        self.socket.sendall((
            f"GET /app/{APP['key']}?protocol=7 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.stream.readline()
        accept = b64encode(sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
        assert head.startswith(b"HTTP/1.1 101") and accept in head, head
        self.socket_id = json.loads(self.receive("pusher:connection_established")["data"])["socket_id"]

    def send(self, event, data):
        payload = json.dumps({"event": event, "data": data}).encode()
        length = bytes([0x80 | len(payload)]) if len(payload) < 126 else bytes([0x80 | 126]) + len(payload).to_bytes(2, "big")
        self.socket.sendall(b"\x81" + length + bytes(4) + payload)  # a mask of zeros changes nothing

    def receive(self, wanted):
        while True:
            kind, length = self.stream.read(2)
            if length == 126:
                length = int.from_bytes(self.stream.read(2), "big")
            payload = self.stream.read(length)
            if kind == 0x81 and (message := json.loads(payload))["event"] == wanted:
                return message
            assert kind != 0x88, payload

    def subscribe(self, channel, **authorization):
        self.send("pusher:subscribe", {"channel": channel, **authorization})
        return self.receive("pusher_internal:subscription_succeeded")

    def close(self):
        self.stream.close()
        self.socket.close()


class PusherLibrary(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.herald = Herald()
        cls.addClassCleanup(cls.herald.stop)

    def setUp(self):
        self.pusher = self.library()

    def library(self, **changed):
        return pusher.Pusher(**{**APP, "host": "127.0.0.1", "port": self.herald.port, "ssl": False, **changed})

    def subscriber(self, *channels):
        subscriber = Subscriber(self.herald.port)
        self.addCleanup(subscriber.close)
        for channel in channels:
            subscriber.subscribe(channel)
        return subscriber

    def test_what_is_triggered_arrives(self):
        subscriber = self.subscriber("news")
        self.pusher.trigger("news", "hello", {"text": "größer ✓"})
        message = subscriber.receive("hello")
        self.assertEqual(message["channel"], "news")
        self.assertEqual(json.loads(message["data"]), {"text": "größer ✓"})

    def test_a_notification_is_created_and_its_repetition_creates_nothing(self):
        client = PusherClient(**APP, host="127.0.0.1", port=self.herald.port, ssl=False)
        body = {"to": {"user_ids": ["ann", "bob"]}, "type": "comment.mentioned", "title": "größer ✓", "transaction_id": "t1"}
        answers = []
        for _ in range(2):
            request = Request(client, "POST", f"/apps/{APP['app_id']}/notifications", body)
            answers.append(client.http.send_request(request))
        self.assertEqual([(answer["created"], answer["duplicates"]) for answer in answers], [(2, 0), (0, 2)])
        status = Request(client, "GET", f"/apps/{APP['app_id']}/notifications/t1")
        self.assertEqual(client.http.send_request(status)["created"], 2)
        with self.assertRaises(pusher.errors.PusherBadRequest):
            client.http.send_request(Request(client, "POST", f"/apps/{APP['app_id']}/notifications", {**body, "type": "Wrong"}))

    def test_several_channels_at_once(self):
        subscriber = self.subscriber("a", "b")
        self.pusher.trigger(["a", "b"], "both", "x")
        self.assertEqual({subscriber.receive("both")["channel"] for _ in range(2)}, {"a", "b"})

    def test_the_named_socket_is_left_out(self):
        subscriber = self.subscriber("others")
        self.pusher.trigger("others", "event", "for others", subscriber.socket_id)
        self.pusher.trigger("others", "event", "for all")
        self.assertEqual(subscriber.receive("event")["data"], "for all")

    def test_a_batch_keeps_its_order(self):
        subscriber = self.subscriber("batch")
        self.pusher.trigger_batch([{"channel": "batch", "name": "n", "data": str(n)} for n in range(10)])
        self.assertEqual([subscriber.receive("n")["data"] for _ in range(10)], [str(n) for n in range(10)])

    def test_a_private_channel_is_authorized_by_the_library(self):
        subscriber = self.subscriber()
        subscriber.subscribe("private-p", **self.pusher.authenticate("private-p", subscriber.socket_id))
        self.pusher.trigger("private-p", "hello", {})
        subscriber.receive("hello")

    def test_a_presence_channel_is_authorized_and_lists_its_users(self):
        subscriber = self.subscriber()
        authorization = self.pusher.authenticate("presence-p", subscriber.socket_id, {"user_id": "7", "user_info": {"name": "Ann"}})
        answer = subscriber.subscribe("presence-p", **authorization)
        self.assertEqual(json.loads(answer["data"])["presence"], {"count": 1, "ids": ["7"], "hash": {"7": {"name": "Ann"}}})
        self.assertEqual(self.pusher.users_info("presence-p"), {"users": [{"id": "7"}]})
        self.assertEqual(self.pusher.channel_info("presence-p", ["user_count"]), {"occupied": True, "user_count": 1})

    def test_occupied_channels_are_listed(self):
        subscriber = self.subscriber("listed-one", "listed-two")
        self.assertEqual(set(self.pusher.channels_info("listed-")["channels"]), {"listed-one", "listed-two"})
        subscriber.close()

    def test_a_user_signs_in_and_is_sent_to_and_terminated(self):
        subscriber = self.subscriber()
        signin = self.pusher.authenticate_user(subscriber.socket_id, {"id": "ann"})
        subscriber.send("pusher:signin", signin)
        subscriber.receive("pusher:signin_success")
        subscriber.subscribe("#server-to-user-ann", auth="")
        self.pusher.send_to_user("ann", "note", "hello")
        self.assertEqual(subscriber.receive("note")["data"], "hello")
        self.pusher.terminate_user_connections("ann")
        self.assertEqual(subscriber.receive("pusher:error")["data"]["code"], 4009)

    def test_an_encrypted_event_carries_no_plain_text(self):
        library = self.library(encryption_master_key_base64=b64encode(bytes(32)).decode())
        subscriber = self.subscriber()
        authorization = library.authenticate("private-encrypted-v", subscriber.socket_id)
        self.assertEqual(len(b64decode(authorization.pop("shared_secret"))), 32)
        subscriber.subscribe("private-encrypted-v", **authorization)
        library.trigger("private-encrypted-v", "secret", {"word": "swordfish"})
        message = subscriber.receive("secret")
        self.assertEqual(set(json.loads(message["data"])), {"nonce", "ciphertext"})
        self.assertNotIn("swordfish", message["data"])

    def test_a_wrong_secret_and_an_unknown_app_are_refused(self):
        with self.assertRaises(pusher.errors.PusherBadAuth):
            self.library(secret="wrong").trigger("news", "hello", {})
        with self.assertRaises(pusher.errors.PusherBadStatus):
            self.library(app_id="404").trigger("news", "hello", {})


if __name__ == "__main__":
    unittest.main()
