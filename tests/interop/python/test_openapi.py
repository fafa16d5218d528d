"""Herald's description of its own API against the real binary, by schemathesis: what is described is what happens, whatever is sent."""

import json
import os
import re
import subprocess
import sys
import time
import unittest
import urllib.request
from base64 import urlsafe_b64encode
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from test_pusher import APP, Herald

KEY = "a-key-of-a-backend-0123456789"
# A rule that a schema cannot say (a time in the past, exactly one of four) makes valid data wrong: `positive_data_acceptance` is left out.
CHECKS = ("not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,"
          "negative_data_rejection,missing_required_header,unsupported_method,allow_header_conformance,ignored_auth")
# So many requests for each operation, and so long for all; the same ones each time, unless another seed is given.
EXAMPLES, DEADLINE = 40, 240
SEED = os.environ.get("HERALD_TEST_SEED", "1")


class Description(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = cls.key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
        cls.herald = Herald(HERALD_API_KEY=KEY, HERALD_AUTH_JWT_KEY=pem, HERALD_CLERK_AUTHORIZED_PARTIES="http://localhost:3000",
                            HERALD_NOTIFICATIONS_TOPICS="*", HERALD_TOKEN_KEYS="k:J5pgjA3ziAqP8TtB9Gjqo77UtympDuM+FeIpJwHHeVk=")
        cls.addClassCleanup(cls.herald.stop)
        cls.url = f"http://127.0.0.1:{cls.herald.port}"
        # There is something in the inbox that can be read, changed and deleted.
        for number in range(200):
            cls.ask("POST", "/v1/notifications", KEY, {
                "to": {"user_ids": ["user_ann"]}, "type": "comment.mentioned", "title": f"No. {number}", "transaction_id": f"t{number}"})
        pages = [cls.ask("GET", "/v1/inbox?limit=100", cls.token())]
        pages.append(cls.ask("GET", f"/v1/inbox?limit=100&cursor={pages[0]['next_cursor']}", cls.token()))
        cls.ids = [item["id"] for page in pages for item in page["items"]]

    @classmethod
    def token(cls):
        encoded = lambda part: urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).rstrip(b"=")
        now = int(time.time())
        signed = encoded({"alg": "RS256", "typ": "JWT", "kid": "ins_test", "cat": "cl_B7d4PD111AAA"}) + b"." + encoded({
            "v": 2, "sub": "user_ann", "sid": "sess_ann", "azp": "http://localhost:3000", "iat": now, "nbf": now - 10, "exp": now + 3600, "sts": "active"})
        return (signed + b"." + encoded(cls.key.sign(signed, padding.PKCS1v15(), hashes.SHA256()))).decode()

    @classmethod
    def ask(cls, method, path, token, body=None):
        request = urllib.request.Request(cls.url + path, method=method, data=body and json.dumps(body).encode(),
                                         headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def holds(self, token, tags, known):
        """Every operation of these tags does what is described, whatever it is asked; parameters that are `known` by values that there are."""
        config = Path(self.herald.directory.name) / f"{tags[0]}.toml"
        lines = ["[generation]", "with-security-parameters = false"]
        for number, values in enumerate(known.values()):
            lines += [f"[dictionaries.d{number}]", f"values = {json.dumps(values)}"]
        lines += ["[parameters]"] + [f'{json.dumps(name)} = {{ dictionary = "d{number}", probability = 0.7 }}' for number, name in enumerate(known)]
        config.write_text("\n".join(lines))
        command = [Path(sys.executable).with_name("st"), "--config-file", config, "run", f"{self.url}/openapi.json", "--header",
                   f"Authorization: Bearer {token}", "--phases", "examples,coverage,fuzzing", "--checks", CHECKS, "--max-examples", str(EXAMPLES),
                   "--seed", SEED, "--continue-on-failure", "--request-timeout", "10", "--generation-database", "none", "--no-color", "--warnings", "off"]
        for tag in tags:
            command += ["--include-tag", tag]
        done = subprocess.run(command, cwd=self.herald.directory.name, capture_output=True, text=True, timeout=DEADLINE)
        self.assertEqual(done.returncode, 0, f"{done.stdout}\n{done.stderr}")
        tested = re.search(r"Tested: (\d+)", done.stdout)
        self.assertGreaterEqual(int(tested[1]), len(tags) * 2, done.stdout)
        self.assertIsNone(self.herald.process.poll(), "it still runs")

    def test_what_users_ask(self):
        self.holds(self.token(), ["inbox", "preferences", "topics", "integrations", "auth", "vitals"], {"path.id": self.ids, "body.up_to_rev": [50, 100, 200]})
        changed = self.ask("GET", "/v1/inbox", self.token())
        self.assertGreater(changed["rev"], 200, "something was read, archived, snoozed or deleted")

    def test_what_backends_ask(self):
        self.holds(KEY, ["notifications", "users"], {"path.app_id": [APP["app_id"]], "path.service": ["google", "github"], "path.transaction_id": [f"t{number}" for number in range(200)]})


if __name__ == "__main__":
    unittest.main()
