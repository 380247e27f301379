"""An S3 server in a process of its own: objects are files below a folder, so that it can be killed and started again.

localbucket gives PUT with If-None-Match, ranges, multipart uploads and listings; what it lacks and Lance's clean-up needs,
DeleteObjects, stands here.

    python -m tests.s3_server FOLDER PORT [ADDRESS]
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from http.server import ThreadingHTTPServer
from pathlib import Path

from localbucket import S3_NAMESPACE, S3Handler


class Handler(S3Handler):
    # A response is written in two parts, of which the second would wait 40 ms for the client's acknowledgement.
    disable_nagle_algorithm = True

    def _post_request(self, bucket: str, key: str) -> None:
        if key or "delete" not in self.query:
            super()._post_request(bucket, key)
            return
        self._bucket_dir(bucket)
        found = ET.Element("DeleteResult", xmlns=S3_NAMESPACE)
        for item in ET.fromstring(self._read_body()).iter():
            if item.tag.endswith("}Key") or item.tag == "Key":
                name = item.text or ""
                self._object_path(bucket, name).unlink(missing_ok=True)
                ET.SubElement(ET.SubElement(found, "Deleted"), "Key").text = name
        self._send_xml(found)

    def log_message(self, format: str, *words: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    Handler.data_root = folder.resolve()
    Server((sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
