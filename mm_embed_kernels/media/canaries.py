"""Small healthy media, which distinguish a broken library from files that end their decoders."""

from __future__ import annotations

import base64
import struct
import zlib

WORDS = "a healthy text of some words"
# A JPEG of 16 x 16 pixels.
_PICTURE = (
    b"|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ"
    b"&KWMT47pHU`kO^PyfIG3kU!Z01yEI5di<h02KfM0RR910000000000000072LHqW7Z3mg0RR910000000000000021v3BI00"
    b";pA002J#lY+StpsquxE0HD&<p0?"
)
# An MP4 of MPEG-4, 32 x 32 pixels, 5 frames in a second, deflated.
_FILM = (
    b"c-muNV30{GsVvAW&d+6FU}6B#Kx~v-U}DI?z`&7Kl$y%Gz{sDQl2`(yH!}#Z1F3C-jehbB`<V|o?&4=>`C;%uPWjJ=iv1rPK"
    b"iFT-kz?Y$P+_5du)X1<{PX6c|C{(5|Ls2}DqY9GaEL5jjN5__aXr{0$NcL;1^-*ehYHf{9siHW8!>#S;D7D-z<w)xOGA#F@_"
    b"&Jv6U^@!7*6PMAADfHmc8NM6*(cs4Hf-=96u}Y1G!t|n12UUc(5IOWdD)<OoJWB<j|(>rtkL|7*1K}*Mj)rhq=N0Gf;kH^ND"
    b"0`-u(q}3=HSl3^v^U&I+`FIWjjtzYG{WIk{ySDGVrp`2`p=GJp^QFrunL=Q}Xq1x!HHTvC*n4P?iZWP|Nw#xxCNH-3At+N%J"
    b"?3=Ar%DJ8`~S|&B8xCEgCYA#qW<L}&*%tVlm+!S=bYk+a+5imzLBPFK@CR3J~l8US{49L&-NX$#gNd>84T$Y=emj+~rl;wgA"
    b"MRul23PesOr6@HG$s0VSML7x(He*_GNm34weXF>nI0Z?~DPTG-!x0o9Pb)BZ0BH}LD$s$%|NlTTA+<QA7#!dY4GsQ4Z7e|AQ"
    b"9%%_gu?<vvI0f)fhKMMxo&HxFvM_11%@NN9SpjREG#0<K<*}=#Ij^FBRwMvJwpQ{HlQ9xCQv9Ol@vjPA7UEF=He1?)WF=y3X"
    b"}t}MSwm=76)M&pja}R7%P<40LoP%`3NKq3ZW<<7Jy=Lh`Gu6NM`5&aZ+hY2`K8La#O)H2q+>)GcaisB^DIqAP1RlCL}GXt}M"
    b"w187K=ZNfKd!4fKB+(Eo-;ApZjZ>Kffw"
)


def picture() -> bytes:
    """Return a JPEG of 16 x 16 pixels."""
    return base64.b85decode(_PICTURE)


def film() -> bytes:
    """Return an MP4 of one second, 32 x 32 pixels."""
    return zlib.decompress(base64.b85decode(_FILM))


def sound() -> bytes:
    """Return a WAV of a quarter of a second, 8 kHz, 8 bit."""
    samples = bytes(range(128, 138)) * 200
    head = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8
    )
    return head + struct.pack("<4sI", b"data", len(samples)) + samples
