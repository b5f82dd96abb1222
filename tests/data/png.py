"""PNG files that Pillow does not write: deep ones and enormous ones."""

import struct
import zlib
from pathlib import Path

COLOUR_TYPE = {"grey": 0, "rgb": 2}


def write_png(path: Path, width: int, height: int, depth: int, colour: str, row: bytes) -> None:
    """Every row of the image is `row`, packed as the format wants it."""
    deflate = zlib.compressobj(1)
    data = b"".join(deflate.compress(b"\0" + row) for _ in range(height)) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, COLOUR_TYPE[colour], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
    )
