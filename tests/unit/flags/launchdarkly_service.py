"""LaunchDarkly as its SDK and its REST API see it, on the loopback interface and in this process.

The streaming protocol (`put`, `patch`, `delete`), the event sink, and of the REST API what a dial uses:
https://launchdarkly.com/docs/api/feature-flags/patch-feature-flag (semantic patches).
"""

import gc
import json
import threading
import warnings
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from urllib.parse import urlsplit

TOKEN = "api-token-canary"
SEMANTIC_PATCH = "domain-model=launchdarkly.semanticpatch"


def flag(key, *variations, serve=0, **parts):
    """A flag as the stream carries it, serving one variation to everybody."""
    return {
        "key": key,
        "version": 1,
        "on": True,
        "variations": list(variations),
        "fallthrough": {"variation": serve},
        "offVariation": 0,
        "salt": "salt",
        **parts,
    }


def rollout(*weights, kind=None):
    """A percentage rollout, in percent of the variations in their order."""
    parts = [{"variation": number, "weight": round(weight * 1000)} for number, weight in enumerate(weights)]
    return {"rollout": {"variations": parts, **({"contextKind": kind} if kind else {})}}


class LaunchDarklyService:
    """What is served. `status` other than 200 refuses everything."""

    def __init__(self):
        self.status = 200
        self.headers = {}
        self.message = "refused"
        self.flags = {}
        self.events = []
        self.connected = 0
        self.rest = {}
        self.patches = []
        self.tokens = []
        self._streams = []
        self._lock = threading.Lock()
        self._versions = 1

    # The stream

    def put(self, *flags):
        """All flags there are, from now on."""
        self.flags = {each["key"]: each for each in flags}
        self._tell("put", self._all())

    def patch(self, changed):
        """One flag that is new or has changed."""
        self._versions += 1
        self.flags[changed["key"]] = {**changed, "version": self._versions}
        self._tell("patch", {"path": f"/flags/{changed['key']}", "data": self.flags[changed["key"]]})

    def delete(self, key):
        """One flag less."""
        self._versions += 1
        del self.flags[key]
        self._tell("delete", {"path": f"/flags/{key}", "version": self._versions})

    def send(self, event, text):
        """Anything at all."""
        for stream in list(self._streams):
            stream.put(f"event: {event}\ndata: {text}\n\n")

    def hang_up(self):
        """End every stream; the SDK comes back."""
        for stream in list(self._streams):
            stream.put(None)

    def of_kind(self, kind):
        """The events of one kind that were reported so far."""
        return [event for event in self.events if event["kind"] == kind]

    def _all(self):
        return {"path": "/", "data": {"flags": self.flags, "segments": {}}}

    def _tell(self, event, content):
        self.send(event, json.dumps(content))

    def stream_to(self, write):
        stream = SimpleQueue()
        with self._lock:
            self._streams.append(stream)
            self.connected += 1
        write(f"event: put\ndata: {json.dumps(self._all())}\n\n")
        while (message := stream.get()) is not None:
            write(message)
        self._streams.remove(stream)

    # The REST API

    def rest_flag(self, key, *variations, kind="multivariate", migrates=None, **parts):
        """A flag as the REST API has it, in the project `shop` and the environment `production`."""
        nothing = {part: [] for part in ("rules", "targets", "contextTargets", "prerequisites")}
        environment = {"on": True, "fallthrough": {"variation": 0}, "offVariation": 0, **nothing, **parts}
        self.rest[key] = {
            "key": key,
            "kind": kind,
            "variations": [{"_id": f"{key}:{value}", "value": value} for value in variations],
            "environments": {"production": environment},
            **({"migrationSettings": {"contextKind": migrates, "stageCount": 6}} if migrates else {}),
        }
        return self.rest[key]

    def served(self, key):
        """The value that the REST API's flag gives to everybody, or its rollout by value."""
        fallthrough = self.rest[key]["environments"]["production"]["fallthrough"]
        values = [variation["value"] for variation in self.rest[key]["variations"]]
        if "rollout" in fallthrough:
            return {
                values[each["variation"]]: each["weight"] for each in fallthrough["rollout"]["variations"]
            }
        return values[fallthrough["variation"]]

    def patched(self, key, patch):
        """Carry out a semantic patch; the status and what is answered."""
        self.patches.append((key, patch))
        kept = self.rest[key]
        ids = [variation["_id"] for variation in kept["variations"]]
        for instruction in patch["instructions"]:
            kind = instruction["kind"]
            if kind == "addVariation":
                if "migrationSettings" in kept:
                    return 400, {"code": "invalid_request", "message": "a migration flag has its stages only"}
                value = instruction["value"]
                kept["variations"].append({"_id": f"{key}:{value}", "value": value})
                continue
            environment = kept["environments"][patch["environmentKey"]]
            if kind in {"turnFlagOn", "turnFlagOff"}:
                environment["on"] = kind == "turnFlagOn"
            elif "migrationSettings" in kept and "variationId" in instruction:
                return 400, {"code": "invalid_request", "message": "provide a rollout for a migration flag"}
            elif kind == "updateFallthroughVariationOrRollout" and "variationId" in instruction:
                environment["fallthrough"] = {"variation": ids.index(instruction["variationId"])}
            elif kind == "updateFallthroughVariationOrRollout":
                weights = [{"variation": ids.index(each), "weight": weight}
                           for each, weight in instruction["rolloutWeights"].items()]  # fmt: skip
                rolled = {"variations": weights, "contextKind": instruction.get("rolloutContextKind", "user")}
                environment["fallthrough"] = {"rollout": rolled}
            else:
                return 400, {"code": "invalid_request", "message": f"no instruction {kind}"}
        return 200, kept


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: LaunchDarklyService

    def do_GET(self):
        if self.service.status != 200:
            self._answer(self.service.status, {"code": "refused", "message": self.service.message})
        elif self.path == "/all":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                self.service.stream_to(self._chunk)
                self._chunk("")
            except OSError:
                pass
            self.close_connection = True
        else:
            self._rest(lambda key: (200, self.service.rest[key]))

    def do_POST(self):
        self.service.events.extend(json.loads(self._body()))
        self._answer(202, None)

    def do_PATCH(self):
        patch = json.loads(self._body())
        if self.service.status != 200:
            self._answer(self.service.status, {"code": "refused", "message": self.service.message})
        elif SEMANTIC_PATCH not in self.headers["Content-Type"]:
            self._answer(400, {"message": "not a semantic patch"})
        else:
            self._rest(lambda key: self.service.patched(key, patch))

    def _rest(self, answer):
        self.service.tokens.append(self.headers["Authorization"])
        *_, project, key = urlsplit(self.path).path.split("/")
        if self.headers["Authorization"] != TOKEN:
            self._answer(401, {"code": "unauthorized", "message": "Invalid account ID header"})
        elif project != "shop" or key not in self.service.rest:
            self._answer(404, {"code": "not_found", "message": "Unknown flag key"})
        else:
            self._answer(*answer(key))

    def _body(self):
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _answer(self, status, content):
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        for name, value in self.service.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _chunk(self, text):
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, *_):
        pass


@contextmanager
def running():
    """A service that listens, and its base URL."""
    service = LaunchDarklyService()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"service": service}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service, f"http://127.0.0.1:{server.server_port}"
    finally:
        service.hang_up()
        server.shutdown()
        server.server_close()
        thread.join()
        # The SDK does not close the connection of a stream that was refused. Left to the garbage collector,
        # it would fail whatever test comes later.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
