"""A request's body as it goes over the wire: JSON with images in it, never held as a whole."""

from collections.abc import Iterator, Sequence

import pybase64

from medeval.types.sample import EncodedImage

# Of an image, so much is made into base64 at a time: a multiple of 3, and with what is made of it
# within a processor's own cache. Larger pieces cost a sample a millisecond more, in fresh memory.
CHUNK_BYTES = 3 << 16
# Up to here, joining two pieces is quicker than writing each.
SMALL_BYTES = 1 << 14


class Body:
    """The JSON body of a request, in pieces that are made as they are sent, any number of times.

    The data URL of an image never passes through the JSON encoder, for base64 holds nothing that
    JSON would escape; and it is never held as a whole: it is quicker made again than looked after.
    """

    def __init__(self, pieces: Sequence[bytes | EncodedImage]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        held = b""
        for part in self._parts():
            if held and len(held) + len(part) > SMALL_BYTES:
                yield held
                held = part
            else:
                held += part
        yield held

    def _parts(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            yield _url_head(piece)
            view = memoryview(piece.data)
            for start in range(0, len(view), CHUNK_BYTES):
                yield pybase64.b64encode(view[start : start + CHUNK_BYTES])

    @property
    def size_bytes(self) -> int:
        """How long it is."""
        return sum(
            len(piece)
            if isinstance(piece, bytes)
            else len(_url_head(piece)) + 4 * -(-len(piece.data) // 3)
            for piece in self._pieces
        )


def _url_head(image: EncodedImage) -> bytes:
    return f"data:{image.media_type};base64,".encode()
