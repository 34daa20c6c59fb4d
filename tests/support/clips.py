"""Small video files."""

import struct

import av
import numpy as np

RATE = 10  # frames a second
ROTATIONS = {  # display matrices of ISO/IEC 14496-12, section 8.3.2, 16.16 fixed point
    90: (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30),  # clockwise
    180: (-(1 << 16), 0, 0, 0, -(1 << 16), 0, 0, 0, 1 << 30),
    270: (0, -(1 << 16), 0, 1 << 16, 0, 0, 0, 0, 1 << 30),
}


def frames(count=6, width=64, height=48):
    """(height, width, 3) uint8 each: red at the left, green at the right, a bluer bottom."""
    images = []
    for number in range(count):
        image = np.zeros((height, width, 3), np.uint8)
        image[:, : width // 2, 0] = 200
        image[:, width // 2 :, 1] = 180
        image[height // 2 :, :, 2] = 40 + 30 * number
        images.append(image)
    return images


def write_clip(path, images=None, *, codec="libx264", times=None, sound=False, turn=0, **options):
    """A video of the images, RATE a second or at these times (tenths of a second); `turn`: degrees
    clockwise by which players are to turn it."""
    images = frames() if images is None else images
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            codec, rate=RATE, options={k: str(v) for k, v in options.items()}
        )
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        audio = container.add_stream("aac", rate=8000) if sound else None
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number if times is None else times[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio:
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 4000), np.float32), format="fltp", layout="mono"
            )
            silence.rate, silence.pts = 8000, 0
            container.mux(audio.encode(silence))
            container.mux(audio.encode())
    if turn:
        data = bytearray(path.read_bytes())
        at = data.index(b"tkhd") + 44
        data[at : at + 36] = struct.pack(">9i", *ROTATIONS[turn])
        path.write_bytes(data)
    return path


def read_clip(path):
    """The frames (H, W, 3) uint8, and their times in seconds."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
        return [f.to_ndarray(format="rgb24") for f in decoded], [f.time for f in decoded]
