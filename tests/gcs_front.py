"""What fake-gcs-server lacks for Lance: objects by Google's XML API, with preconditions and uploads in parts.

A process before that server: requests for ``/BUCKET/OBJECT`` become requests of the JSON API, whose answers (412 where
x-goog-if-generation-match does not hold) are the server's own; all others pass through as they are.

    python -m tests.gcs_front PORT UPSTREAM_PORT
"""

from __future__ import annotations

import http.client
import json
import sys
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

# First segments of the JSON API's paths, which no bucket has for its name.
_JSON = ("storage", "upload", "download", "batch", "_internal")
_HOP = ("connection", "transfer-encoding", "host", "content-length", "date", "server")


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream = 0
    # Uploads in parts that are under way; the server sees them when they are whole.
    parts: dict[str, dict[int, bytes]] = {}

    def do_GET(self) -> None:
        self._pass_on(self._body())

    do_HEAD = do_GET
    do_PATCH = do_GET

    def do_PUT(self) -> None:
        body, (bucket, name), query = self._body(), self._object(), self._query()
        if not name:
            self._pass_on(body)
        elif "uploadId" in query:
            self.parts[query["uploadId"]][int(query["partNumber"])] = body
            self._answer(200, {"ETag": f'"{uuid.uuid4().hex}"'})
        elif source := self.headers.get("x-goog-copy-source"):
            from_bucket, _, from_name = unquote(source).lstrip("/").partition("/")
            self._json(
                "POST",
                f"/storage/v1/b/{from_bucket}/o/{quote(from_name, '')}/rewriteTo/b/{bucket}/o/{quote(name, '')}",
            )
        else:
            self._create(bucket, name, body)

    def do_POST(self) -> None:
        body, (bucket, name), query = self._body(), self._object(), self._query()
        if not name:
            self._pass_on(body)
        elif "uploads" in query:
            made = uuid.uuid4().hex
            self.parts[made] = {}
            self._xml("InitiateMultipartUploadResult", Bucket=bucket, Key=name, UploadId=made)
        else:
            named = [
                int(item.text or 0)
                for item in ET.fromstring(body).iter()
                if item.tag.rpartition("}")[2] == "PartNumber"
            ]
            held = self.parts.pop(query["uploadId"])
            self._create(bucket, name, b"".join(held[number] for number in named), whole=True)

    def do_DELETE(self) -> None:
        body, (bucket, name), query = self._body(), self._object(), self._query()
        if not name:
            self._pass_on(body)
        elif "uploadId" in query:
            self.parts.pop(query["uploadId"], None)
            self._answer(204)
        else:
            self._json("DELETE", f"/storage/v1/b/{bucket}/o/{quote(name, '')}")

    def _create(self, bucket: str, name: str, body: bytes, whole: bool = False) -> None:
        match = self.headers.get("x-goog-if-generation-match")
        condition = "" if match is None else f"&ifGenerationMatch={match}"
        edge = uuid.uuid4().hex
        head = f"--{edge}\r\nContent-Type: application/json\r\n\r\n{json.dumps({'name': name})}\r\n--{edge}\r\nContent-Type: application/octet-stream\r\n\r\n"
        sent = head.encode() + body + f"\r\n--{edge}--\r\n".encode()
        path = f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart&name={quote(name, '')}{condition}"
        status, found = self._asked(
            "POST", path, sent, {"Content-Type": f"multipart/related; boundary={edge}"}
        )
        if status != 200:
            self._answer(status, body=json.dumps(found).encode())
        elif whole:
            self._xml("CompleteMultipartUploadResult", Bucket=bucket, Key=name, ETag=f'"{found["etag"]}"')
        else:
            self._answer(200, {"ETag": f'"{found["etag"]}"', "x-goog-generation": found["generation"]})

    def _json(self, method: str, path: str) -> None:
        """Ask the JSON API; its status is the answer."""
        status, found = self._asked(method, path)
        etag = found.get("resource", found).get("etag", "") if isinstance(found, dict) else ""
        self._answer(204 if status == 200 and method == "DELETE" else status, {"ETag": f'"{etag}"'})

    def _asked(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> tuple[int, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        said = response.read()
        connection.close()
        return response.status, json.loads(said or b"{}")

    def _pass_on(self, body: bytes) -> None:
        # Lance encodes what a bucket's name need not have encoded.
        path = self.path
        first = path.split("/")[1].partition("?")[0]
        if first not in _JSON:
            path = path.replace(first, unquote(first), 1)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in _HOP} | {
            "Host": self.headers["Host"]
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        connection.request(self.command, path, body or None, kept)
        response = connection.getresponse()
        said = response.read()
        headers = {name: value for name, value in response.getheaders() if name.lower() not in _HOP}
        if self.command == "HEAD":
            headers["Content-Length"] = response.getheader("Content-Length", "0")
        self._answer(response.status, headers, said)
        connection.close()

    def _object(self) -> tuple[str, str]:
        """(bucket, object) of a path of the XML API, else empty ones."""
        bucket, _, name = urlsplit(self.path).path.lstrip("/").partition("/")
        return ("", "") if bucket in _JSON else (unquote(bucket), unquote(name))

    def _query(self) -> dict[str, str]:
        return {
            name: values[0]
            for name, values in parse_qs(urlsplit(self.path).query, keep_blank_values=True).items()
        }

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _xml(self, name: str, **fields: str) -> None:
        root = ET.Element(name)
        for key, value in fields.items():
            ET.SubElement(root, key).text = value
        self._answer(200, {"Content-Type": "application/xml"}, ET.tostring(root))

    def _answer(self, status: int, headers: Mapping[str, str] = {}, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204 and "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *words: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def main() -> None:
    Front.upstream = int(sys.argv[2])
    Server(("127.0.0.1", int(sys.argv[1])), Front).serve_forever()


if __name__ == "__main__":
    main()
