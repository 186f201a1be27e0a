"""A stand-in for llama-server, run as a program of its own: its options, /health, /completion.

Its second answer to /health is the first good one. The deeper it drafts the slower it claims to
be, so that a test can tell settings apart, and it refuses what a test wants refused.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    n_asked = 0
    n_max = 0

    def do_GET(self) -> None:
        Handler.n_asked += 1
        self.reply(503 if Handler.n_asked == 1 else 200, {"status": "ok"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["prompt"] == [0]:
            self.reply(400, {"error": "the prompt is too long"})
            return
        n = asked["n_predict"]
        timings: dict[str, Any] = {
            "predicted_n": n,
            "predicted_per_second": 100.0 / (1 + self.n_max),
        }
        if self.n_max:
            timings |= {"draft_n": 4 * self.n_max, "draft_n_accepted": self.n_max}
        self.reply(200, {"tokens": [asked["prompt"][-1]] * n, "timings": timings})

    def reply(self, code: int, content: dict[str, Any]) -> None:
        raw = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    if options["--model"].endswith("broken.gguf"):
        sys.exit("error: failed to load the model")
    default = 3 if "--spec-type" in options else 0
    Handler.n_max = int(options.get("--spec-draft-n-max", default))
    HTTPServer(("127.0.0.1", int(options["--port"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
