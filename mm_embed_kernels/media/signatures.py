"""Signatures of formats that the decoders read and the `filetype` library does not know."""

from __future__ import annotations

import re

_SIGNATURES = (
    (rb"P[1-6]\s+(#[^\n]*\n\s*)*\d+\s+\d+\s", "image/x-portable-anymap"),
    (rb"P7\nWIDTH|P[Ff]\n\d", "image/x-portable-anymap"),
    (rb"DDS \x7c\0\0\0", "image/vnd-ms.dds"),
    (rb"icns\0", "image/x-icns"),
    (rb"qoif.{8}[\x03\x04][\0\x01]", "image/qoi"),
    (rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]", "image/x-pcx"),
    (rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]", "image/x-sgi"),
    (rb"\x59\xa6\x6a\x95", "image/x-sun-raster"),
    (rb"\xff\x4f\xff\x51", "image/x-jp2-codestream"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n", "image/jpx"),
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    (rb"SDPX|XPDS", "image/x-dpx"),
    (rb"v/1\x01", "image/x-exr"),
    (rb"#\?(RADIANCE|RGBE)\n", "image/vnd.radiance"),
    (rb"SIMPLE  =  {18,}T", "image/fits"),
    (rb"II\x2b\0\x08\0\0\0|MM\0\x2b\0\x08\0\0", "image/tiff"),  # BigTIFF
    (rb".\0[\x02\x03\x0a\x0b]\0{5}.{4}(?!\0\0)..(?!\0\0)..[\x08\x0f\x10\x18\x20][\0-\x3f]", "image/x-tga"),
    (rb".\x01[\x01\x09].{4}[\x0f\x10\x18\x20].{4}(?!\0\0)..(?!\0\0)..[\x08\x10][\0-\x3f]", "image/x-tga"),
    (rb"\x28\0\0\0.{8}\x01\0[\x01\x04\x08\x10\x18\x20]\0", "image/x-ms-dib"),
    (rb"\0\0\x02\0[^\0]\0", "image/x-win-cursor"),
    (rb"BLP[12]", "image/x-blp"),
    (rb"FTEX\x01", "image/x-ftex"),
    (rb"DanM|LinS", "image/x-msp"),
    (rb"\xb1\x68\xde\x3a", "image/x-dcx"),
    (rb"\x80\xe8\0\0", "image/x-pixar"),
    (rb"P7 332", "image/x-xv-thumbnail"),
    (rb"\0{7}\x04", "image/x-mcidas-area"),
    (rb"gimp xcf ", "image/x-xcf"),
    (rb".{20}GIMP", "image/x-gimp-gbr"),
    (rb"Image type: .{0,499}\x1a", "image/x-im"),
    (rb".{2048}PCD_", "image/x-photo-cd"),
    (rb"/\* XPM \*/", "image/x-xpixmap"),
    (rb"\s*#define\s+\w+_width\s+\d+\s+#define\s+\w+_height\s", "image/x-xbitmap"),
    (rb"....ftyp(avi[fs]|mif1|msf1|he[iv][cmsx])", "image/heif"),
    (rb"....ftyp", "video/mp4"),
    # Lengths may have more than one byte.
    (rb"\x1a\x45\xdf\xa3.{0,60}?\x42\x82.{1,8}?matroska", "video/x-matroska"),
    (rb"\x1a\x45\xdf\xa3.{0,60}?\x42\x82.{1,8}?webm", "video/webm"),
    # QuickTime before it had a box of its type: the table, the media, or a space between.
    (rb"\0...(moov|mdat|wide|free|skip|pnot)|[\0-\x7f]...mdat", "video/quicktime"),
    (rb"....[\x11\x12]\xaf.{6}\x08\0", "video/x-flic"),
    (rb"caff\0\x01", "audio/x-caf"),
    (rb"(RF64|BW64|RIFX)....WAVE", "audio/x-wav"),
    (rb"riff\x2e\x91\xcf\x11", "audio/x-w64"),
    (rb"\.snd\0|dns\..\0", "audio/basic"),
    (rb"FORM....(AIFC|AIFF)", "audio/x-aiff"),
    (rb"FORM....(8SVX|16SV)", "audio/x-svx"),
    (rb"\xff[\xe2\xe3\xfa][\x10-\xef]", "audio/mpeg"),
    (rb"\xff[\xf0\xf1\xf8\xf9][\x40-\x7c]", "audio/aac"),
    (rb"\x0b\x77", "audio/ac3"),
    (rb"\x7f\xfe\x80\x01", "audio/vnd.dts"),
    (rb"wvpk....[\x02-\x10]\x04", "audio/x-wavpack"),
    (rb"MAC ", "audio/x-ape"),
    (rb"MP\+|MPCK", "audio/x-musepack"),
    (rb"tBaK", "audio/x-tak"),
    (rb"DSD \x1c\0", "audio/x-dsf"),
    (rb"FRM8.{8}DSD ", "audio/x-dff"),
    (rb"TTA1", "audio/x-tta"),
    (rb"Creative Voice File\x1a", "audio/x-voc"),
    (rb"NIST_1A\n", "audio/x-nist"),
    (rb"\x47.{187}\x47.{187}\x47|.{4}\x47.{191}\x47.{191}\x47", "video/mp2t"),
    (rb"\0\0\x01\xb3", "video/mpeg"),
    (rb"\0\0\0?\x01[\x67\x27\x09].", "video/h264"),
    (rb"\0\0\0?\x01[\x40\x42\x46]\x01", "video/h265"),
    (rb"YUV4MPEG2 [A-Z]\d", "video/x-yuv4mpeg"),
    (rb"DKIF\0\0", "video/x-ivf"),
    (rb"\.ra\xfd", "audio/x-pn-realaudio"),
    (rb"\.RMF\0", "video/x-pn-realvideo"),
    (rb"nut/multimedia container\0", "video/x-nut"),
    (rb"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02", "video/mxf"),
    (rb"\x1f\x07\0[\x3f\xbf]", "video/x-dv"),
    # A transport stream that was cut within a packet.
    (rb".{1,187}?(\x47.{187}){4}\x47", "video/mp2t"),
)
# One expression for all, since most heads match none; the name of the group is the number of its signature.
_ANY = re.compile(
    b"|".join(b"(?P<_%d>%s)" % (number, signature) for number, (signature, _) in enumerate(_SIGNATURES)),
    re.DOTALL,
)


def media_type_of(head: bytes) -> str | None:
    """Return the media type of a blob's first bytes, None where they have none of these signatures."""
    match = _ANY.match(head)
    return _SIGNATURES[int(str(match.lastgroup)[1:])][1] if match else None
