"""Containers of untrusted video, read by FFmpeg (PyAV): their facts, and their tracks packet by packet.

`mm_embed_kernels.media.frames` decodes the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.containers import ends_early
from mm_embed_kernels.media.film_times import Packets, PacketTimes, packet_times, rate_of, time_limit
from mm_embed_kernels.media.library_errors import library_error
from mm_embed_kernels.media.media_type import Media, open_media
from mm_embed_kernels.media.ogg_links import find_links

# Demuxers that hold moving pictures. Playlists and scripts, which make FFmpeg open other files and addresses,
# are left out.
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,ogg,mpeg,mpegts,flv,asf,wmv,ivf,yuv4mpegpipe,mpegvideo,h264,hevc,"
    "rm,nut,mxf,dv,flic,m4v"
)
# FFmpeg's flag of a still picture that accompanies sound, which is no video.
_ATTACHED_PICTURE = 0x0400


@dataclass(frozen=True, eq=False)
class Facts:
    """Properties of a video's first picture track and of its container.

    Attributes:
        codec: FFmpeg's name of the coding.
        width: pixels, as coded.
        height: pixels, as coded.
        duration: seconds from the beginning of the first frame to the end of the last.
        frame_rate: frames per second on average.
        frames: frames that are displayed, counted packet by packet; nothing is decoded for it.
        stated_frames: frames that the container states, without those that an edit list hides, or None.
        bit_rate: bits per second of the whole file, or None.
        audio_codec: of the first sound track, or None where the video is mute.
        cut: whether the container ends too early.
        container: FFmpeg's name of the container.
        times: when the frames are displayed.
        rate: frames per second that the track states.
        limit: seconds that the time of no frame exceeds.
        defect: why the packets could not be read to their end.
    """

    codec: str
    width: int
    height: int
    duration: float
    frame_rate: float
    frames: int
    stated_frames: int | None
    bit_rate: int | None
    audio_codec: str | None
    cut: bool
    container: str
    times: PacketTimes
    rate: float
    limit: float
    defect: SampleError | None = None

    @property
    def pixels(self) -> int:
        """Pixels of all frames: the cost of decoding the whole video."""
        return self.frames * self.width * self.height

    @property
    def read_share(self) -> float | None:
        """Share of the stated frames that are in the file; None where it is cut and states no number."""
        if not self.cut and self.defect is None:
            return 1.0
        return min(1.0, self.frames / self.stated_frames) if self.stated_frames else None


def describe(data: Media) -> Facts:
    """Return the facts of a video.

    Raises:
        SampleError: ``truncated``, ``no_video``, ``no_frames``, ``unsupported_format`` or ``decode_error``.
    """
    with _open_video(data) as (container, cut):
        return _facts(container, cut)


@contextmanager
def open_video_container(stream: BinaryIO) -> Iterator[Any]:
    """Open a container of video by FFmpeg, which reads nothing but the stream.

    Raises:
        SampleError: ``truncated``, ``decode_error`` or ``memory_limit``.
    """
    import av

    try:
        container = av.open(
            stream,
            metadata_errors="replace",
            options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"},
        )
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise library_error(error, "FFmpeg reads no video in it") from error
    with container:
        yield container


def picture_track(container: Any) -> Any:
    """Return the first track of moving pictures.

    Raises:
        SampleError: ``no_video``.
    """
    tracks = [track for track in container.streams.video if not track.disposition & _ATTACHED_PICTURE]
    if not tracks:
        raise SampleError("no_video", f"the {container.format.name} container holds no moving pictures")
    return tracks[0]


def decodable_track(container: Any) -> Any:
    """Return the first track of moving pictures, which FFmpeg can decode.

    Raises:
        SampleError: ``no_video``, or ``unsupported_format`` where FFmpeg has no decoder for it.
    """
    track = picture_track(container)
    if track.codec_context is None:
        raise SampleError(
            "unsupported_format",
            f"FFmpeg has no decoder for the pictures in this {container.format.name} container",
        )
    return track


def copy_packets(container: Any, track: Any, out: Any) -> None:
    """Copy the packets of a track to another container; decodes nothing.

    Raises:
        SampleError: ``truncated`` or ``decode_error``.
    """
    import av

    # Opaque: FFmpeg need not know how to write what it only copies.
    copied = out.add_stream_from_template(track, opaque=True)
    try:
        for packet in container.demux(track):
            if packet.dts is not None:
                packet.stream = copied
                out.mux(packet)
    except av.FFmpegError as error:
        raise library_error(error, "the container is damaged") from error


@contextmanager
def _open_video(data: Media) -> Iterator[tuple[Any, bool]]:
    """Open a video's container; yields it, and whether it ends early, which explains any error then."""
    with open_media(data) as stream:
        # Before FFmpeg reads: it does not notice that its position in the stream is changed.
        cut = ends_early(stream)
        if (films := len(find_links(stream))) > 1:
            raise SampleError(
                "unsupported_format",
                f"{films} films follow each other in this Ogg file, of which FFmpeg reads the first alone; "
                "split the file",
            )
        try:
            with open_video_container(stream) as container:
                yield container, cut
        except SampleError as error:
            if cut:
                raise SampleError(
                    "truncated", f"the file is cut off inside its container: {error.message}"
                ) from error
            raise


def _facts(container: Any, cut: bool) -> Facts:
    import av

    track = decodable_track(container)
    packets, defect = Packets(), None
    try:
        for packet in container.demux(track):
            packets.add(packet)
    except av.FFmpegError as error:
        defect = library_error(error, "the container is damaged")
        if not packets.pts:
            raise defect from error
    count = len(packets.pts)
    if not count:
        raise SampleError("no_frames", "the file is well formed, but holds not one frame")
    times, rate = packet_times(packets, track, container), rate_of(track)
    duration = times.duration
    sound = container.streams.audio
    return Facts(
        codec=track.codec_context.name,
        width=track.codec_context.width,
        height=track.codec_context.height,
        duration=duration,
        frame_rate=count / duration if duration > 0 else rate,
        frames=count,
        stated_frames=_stated_frames(container, track, packets, cut),
        bit_rate=container.bit_rate or None,
        audio_codec=sound[0].codec_context.name if sound and sound[0].codec_context else None,
        cut=cut,
        container=container.format.name,
        times=times,
        rate=rate,
        limit=time_limit(container, count / rate),
        defect=defect,
    )


def _stated_frames(container: Any, track: Any, packets: Packets, cut: bool) -> int | None:
    """Return the frames that the container states, without those that are not displayed."""
    if container.format.name.startswith("mov,mp4") and not cut and track.frames:
        # FFmpeg gives the packet of each stated frame, except of those outside of the edit list.
        return min(int(track.frames), len(packets.pts))
    return max(0, int(track.frames) - packets.hidden) or None
