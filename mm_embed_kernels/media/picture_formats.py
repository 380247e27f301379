"""Decoders that are tried for each media type of a picture; no other one ever sees its bytes."""

from __future__ import annotations

from dataclasses import dataclass

from mm_embed_kernels.errors import SampleError


@dataclass(frozen=True)
class Decoders:
    """Decoders of one media type.

    Attributes:
        pillow: names of Pillow's formats, in the order in which they are tried.
        demuxers: names of FFmpeg's demuxers, with commas, for what Pillow does not know; may be empty.
        codecs: names of FFmpeg's decoders, with commas.
    """

    pillow: tuple[str, ...] = ()
    demuxers: str = ""
    codecs: str = ""


_JPEG2000 = Decoders(("JPEG2000",), "j2k_pipe", "jpeg2000")
# Brands do not tell the coding: a file of the brand `mif1` holds either.
_HEIF = Decoders(("AVIF", "HEIF"))
_PNG = Decoders(("PNG",), "png_pipe,apng", "png,apng")

DECODERS = {
    "image/apng": _PNG,
    "image/avif": _HEIF,
    "image/bmp": Decoders(("BMP",), "bmp_pipe", "bmp"),
    "image/fits": Decoders(("FITS",)),
    "image/gif": Decoders(("GIF",), "gif", "gif"),
    "image/heic": _HEIF,
    "image/heif": _HEIF,
    "image/jpeg": Decoders(("JPEG",), "jpeg_pipe,jpegls_pipe", "mjpeg,jpegls"),
    "image/jpx": _JPEG2000,
    "image/png": _PNG,
    "image/qoi": Decoders(("QOI",), "qoi_pipe", "qoi"),
    "image/tiff": Decoders(("TIFF",), "tiff_pipe", "tiff"),
    "image/vnd-ms.dds": Decoders(("DDS",), "dds_pipe", "dds"),
    "image/vnd.adobe.photoshop": Decoders(("PSD",), "psd_pipe", "psd"),
    "image/vnd.radiance": Decoders((), "hdr_pipe", "hdr"),
    "image/webp": Decoders(("WEBP",), "webp_pipe", "webp"),
    "image/x-blp": Decoders(("BLP",)),
    "image/x-canon-cr2": Decoders(("TIFF",)),
    "image/x-dcx": Decoders(("DCX",)),
    "image/x-dpx": Decoders((), "dpx_pipe", "dpx"),
    "image/x-exr": Decoders((), "exr_pipe", "exr"),
    "image/x-ftex": Decoders(("FTEX",)),
    "image/x-gimp-gbr": Decoders(("GBR",)),
    "image/x-icns": Decoders(("ICNS",)),
    "image/x-icon": Decoders(("ICO",)),
    "image/x-im": Decoders(("IM",)),
    "image/x-jp2-codestream": _JPEG2000,
    "image/x-mcidas-area": Decoders(("MCIDAS",)),
    "image/x-ms-dib": Decoders(("DIB",)),
    "image/x-msp": Decoders(("MSP",)),
    "image/x-pcx": Decoders(("PCX",), "pcx_pipe", "pcx"),
    "image/x-photo-cd": Decoders(("PCD",)),
    "image/x-pixar": Decoders(("PIXAR",)),
    "image/x-portable-anymap": Decoders(
        ("PPM",),
        "pam_pipe,pbm_pipe,pfm_pipe,pgm_pipe,phm_pipe,ppm_pipe",
        "pam,pbm,pfm,pgm,phm,ppm",
    ),
    "image/x-sgi": Decoders(("SGI",), "sgi_pipe", "sgi"),
    "image/x-sun-raster": Decoders(("SUN",), "sunrast_pipe", "sunrast"),
    "image/x-tga": Decoders(("TGA",)),
    "image/x-win-cursor": Decoders(("CUR",)),
    "image/x-xbitmap": Decoders(("XBM",), "xbm_pipe", "xbm"),
    "image/x-xpixmap": Decoders(("XPM",), "xpm_pipe", "xpm"),
    "image/x-xv-thumbnail": Decoders(("XVTHUMB",)),
}
# Formats that a message names, and what writes them in another one.
_NAMES = {
    "image/jxl": "JPEG XL",
    "image/vnd.dwg": "a drawing of AutoCAD",
    "image/vnd.ms-photo": "JPEG XR",
    "image/x-xcf": "a file of GIMP",
}


def decoders_of(mime: str) -> Decoders:
    """Return the decoders of a media type.

    Raises:
        SampleError: ``unsupported_format``, with the format's name, where there is none.
    """
    if mime in DECODERS:
        return DECODERS[mime]
    name = f"{_NAMES[mime]} ({mime})" if mime in _NAMES else mime
    raise SampleError(
        "unsupported_format", f"no decoder here reads {name}; convert it to PNG, JPEG, WebP, AVIF or TIFF"
    )
