"""The extension that a picture's first bytes ask for: rows of a table have no file names of their own."""

# What libmagic and the formats' own pages call their signatures; the order matters to none of them.
# https://www.iana.org/assignments/media-types/media-types.xhtml#image lists the formats
SIGNATURES = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
    (b"\0\0\0\x0cjP  ", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
)
NETPBM = frozenset(b"123456")  # https://netpbm.sourceforge.net/doc/pnm.html
AVIF_BRANDS = (b"avif", b"avis")  # https://aomediacodec.github.io/av1-avif/


def extension_of_bytes(head: bytes) -> str:
    """Of at least the first 16 bytes, with its dot; empty where they begin no known format."""
    for signature, extension in SIGNATURES:
        if head.startswith(signature):
            return f".{extension}"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    if head[4:8] == b"ftyp" and head[8:12] in AVIF_BRANDS:
        return ".avif"
    if head[:1] == b"P" and head[1:2] and head[1] in NETPBM and head[2:3].isspace():
        return ".ppm"
    return ""
