"""Reads pictures: what somebody sends becomes a small, upright picture, or a sentence that says why it can't.

`schema.py` makes a class of its own from `Picture`, which says what the model's pictures are.
"""

import hashlib
import io
import warnings
from typing import ClassVar, Self

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL import WebPImagePlugin as WebPImagePlugin  # its reader makes itself known

# The other common readers. Pillow would fetch them with the first picture, and all that it has with the first WebP.
Image.preinit()
# Picture.from_bytes refuses what Pillow only warns of.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

# Larger pictures are made smaller at once, to between this and twice as much.
LONGER_SIDE = 512
LIES_ON_ITS_SIDE = (5, 6, 7, 8)


class Picture:
    """A picture as the model's code gets it: upright, in `mode`, on white where it was transparent.

    `width` and `height` are the pixels that were sent, as one sees them; `image` may have fewer.
    """

    mode: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]
    max_pixels: ClassVar[int]

    def __init__(self, image: Image.Image, width: int, height: int, content: bytes) -> None:
        self.image = image
        self.width = width
        self.height = height
        self.bytes = len(content)
        self.sha256 = hashlib.sha256(content).hexdigest()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Return the picture in the file `content`.

        Raises ValueError with the reason where there is none, and before anything is decoded where it is too large.
        """
        opened = cls.open(content)
        width, height = opened.size
        try:
            image = smaller(opened)
            if image.getexif().get(ExifTags.Base.Orientation) in LIES_ON_ITS_SIDE:
                width, height = height, width
            image = on_white(ImageOps.exif_transpose(image)).convert(cls.mode)
        # The readers of formats fail with any exception when they meet what nobody has foreseen.
        except Exception as error:
            raise damaged(error) from None
        if all(low == high for low, high in np.reshape(image.getextrema(), (-1, 2))):
            raise ValueError("the picture is of one colour, there is nothing on it")
        return cls(image, width, height, content)

    @classmethod
    def open(cls, content: bytes) -> Image.Image:
        """Return the picture with its header read and nothing else. Raises ValueError as `from_bytes` does."""
        if not content:
            raise ValueError("the picture is empty; send the bytes of a file")
        limit = f"may have {cls.max_pixels:,} pixels; send a smaller one"
        # Above twice this Pillow refuses a picture before it reserves the memory.
        Image.MAX_IMAGE_PIXELS = cls.max_pixels // 2
        try:
            opened = Image.open(io.BytesIO(content), formats=cls.formats)
        except UnidentifiedImageError:
            raise ValueError(f"this is no picture in {', '.join(cls.formats)}; convert it to one of these") from None
        except Image.DecompressionBombError:
            raise ValueError(f"the picture is too large: it {limit}") from None
        except Exception as error:
            raise damaged(error) from None
        if opened.width * opened.height > cls.max_pixels:
            raise ValueError(f"the picture is too large: it has {opened.width:,} x {opened.height:,} and {limit}")
        return opened

    @classmethod
    def media_types(cls) -> list[str]:
        """Return the content types of the accepted formats."""
        return [Image.MIME[name] for name in cls.formats]

    def described(self) -> dict[str, str | int]:
        """Return what the log says of the picture: enough to find it again, nothing that is on it."""
        return {"sha256": self.sha256, "bytes": self.bytes, "width": self.width, "height": self.height}


def smaller(image: Image.Image) -> Image.Image:
    """Decode a picture and return it with a longer side of at most twice LONGER_SIDE."""
    # JPEG is decoded at a fraction of its size where that is enough.
    image.draft(None, (LONGER_SIDE, LONGER_SIDE))
    image.load()
    if image.mode.startswith("I"):  # grey with 16 bits
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("1", "P", "PA"):  # no mixtures of their pixels
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    factor = max(image.size) // LONGER_SIDE
    return image.reduce(factor) if factor > 1 else image


def on_white(image: Image.Image) -> Image.Image:
    """Return a picture without transparency."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def damaged(error: Exception) -> ValueError:
    """Return the refusal of a picture that can't be decoded."""
    return ValueError(f"the picture is damaged or cut off ({error}); send the whole file")
