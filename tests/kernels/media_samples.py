"""Pictures and texts made with real codecs for the tests, without files in the repository."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

from tests.kernels.documents import pdf
from tests.kernels.sounds import encode_audio, noise
from tests.kernels.videos import encode_video, pan

ENGLISH = "The old lighthouse keeper climbed the stairs every evening to light the lamp for the ships at sea."
RUSSIAN = (
    "Москва — столица России, город федерального значения, административный центр Центрального федерального округа. "
    "Население города составляет более тринадцати миллионов человек."
)
GERMAN = (
    "Die Straße führt über die Brücke und weiter durch große Wälder, wo früher Könige und Königinnen lebten."
)


def picture(size: tuple[int, int] = (320, 240), seed: int = 0) -> Any:
    """Draw gradients, waves and a box: a picture with edges that survives compression."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    waves = 127 + 80 * np.sin(x / (17 + 9 * seed)) * np.cos(y / (23 - 5 * seed))
    pixels = np.stack([x * 255 / size[0], y * 255 / size[1], waves], -1).astype(np.uint8)
    top, left = size[1] // 4, size[0] // (4 - seed)
    pixels[top : top * 2, left : left * 2] = (250, 30, 30)
    return Image.fromarray(pixels)


def encode_image(image: Any, kind: str, **options: Any) -> bytes:
    """Encode by Pillow."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int) -> bytes:
    """Return a few hundred bytes that declare a huge picture."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + png_chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + png_chunk(b"IEND", b"")
    )


GOOD: dict[str, bytes] = {
    "text": ENGLISH.encode(),
    "image": encode_image(picture(), "PNG"),
    "audio": encode_audio(noise()),
    "video": encode_video(pan()),
    "document": pdf([ENGLISH, "A second page with other words."]),
}


def icons() -> dict[str, list[bytes]]:
    """Icons of Matplotlib's, each at two sizes."""
    import matplotlib as mpl

    folder = Path(mpl.get_data_path()) / "images"
    return {
        path.stem.removesuffix("_large"): [
            (folder / path.name.replace("_large", "")).read_bytes(),
            path.read_bytes(),
        ]
        for path in sorted(folder.glob("*_large.png"))
    }


def photographs() -> dict[str, list[bytes]]:
    """Two photographs of scikit-learn's, each in four versions: original, half size, strongly compressed, both."""
    import sklearn
    from PIL import Image

    found = {}
    for path in sorted((Path(sklearn.__file__).parent / "datasets" / "images").glob("*.jpg")):
        with Image.open(path) as image:
            half = image.resize((image.width // 2, image.height // 2))
            found[path.stem] = [
                path.read_bytes(),
                encode_image(half, "PNG"),
                encode_image(image, "JPEG", quality=30),
                encode_image(half, "WEBP", quality=50),
            ]
    return found
