"""Reads picture files: what a caller sends becomes a small, upright array of pixels, or a sentence that says why not.

Only a model with a picture in its schema imports this module; no other module of `serving/` imports Pillow.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL import WebPImagePlugin as WebPImagePlugin  # importing it registers its reader

from serving.fields import Field, UnsupportedType

# The other common readers. Pillow would import them with the first picture, and a start is cheaper than a request.
Image.preinit()
# `opened` refuses what Pillow only warns about.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

MODES = ("L", "RGB")
FORMATS = ("PNG", "JPEG", "WEBP")
# A phone's camera has 12 million pixels. WebP, the hungriest format, takes 40 bytes a pixel while it is decoded.
MAX_PIXELS = 16_000_000
# Larger pictures are reduced at once, to a longer side between this and twice as much.
LONGER_SIDE = 512


@dataclass(frozen=True)
class Wanted:
    """Which pictures a field takes, and what the model gets of them.

    `mode` is "L" (grey) or "RGB" (colour). `formats` are the accepted file formats, under Pillow's names. A picture of
    more than `max_pixels` is refused before it is decoded.
    """

    mode: str = "L"
    formats: tuple[str, ...] = FORMATS
    max_pixels: int = MAX_PIXELS


def wanted(field: Field) -> Wanted:
    """Return which pictures `field` takes: the `picture` of its Meta's `extra_json_schema`, else the defaults.

    Raises UnsupportedType with the setting that can't be served.
    """
    settings = field.details.get("picture", {})
    where = f"the picture settings of `{field.name}` in model_code/schema.py"
    if not isinstance(settings, dict):
        raise UnsupportedType(f"{where} must be a dict with mode, formats or max_pixels, not {settings!r}")
    if unknown := settings.keys() - {"mode", "formats", "max_pixels"}:
        names = ", ".join(sorted(map(str, unknown)))
        raise UnsupportedType(f"{where} may have mode, formats and max_pixels, but not {names}")
    mode = settings.get("mode", "L")
    if mode not in MODES:
        raise UnsupportedType(f'{where}: mode must be "L" (grey) or "RGB" (colour), not {mode!r}')
    formats = settings.get("formats", FORMATS)
    if not isinstance(formats, list | tuple) or not formats or any(name not in FORMATS for name in formats):
        known = ", ".join(FORMATS)
        raise UnsupportedType(f"{where}: formats must be a list of one or more of {known}, not {formats!r}")
    max_pixels = settings.get("max_pixels", MAX_PIXELS)
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
        raise UnsupportedType(f"{where}: max_pixels must be a whole number of at least 1, not {max_pixels!r}")
    return Wanted(mode, tuple(formats), max_pixels)


def media_types(wanted: Wanted) -> list[str]:
    """Return the content types of the accepted formats."""
    return [Image.MIME[name] for name in wanted.formats]


def decode(content: bytes, wanted: Wanted) -> npt.NDArray[np.uint8]:
    """Return the picture in the file `content`: upright, on white where it was transparent, reduced if it is large.

    The array is uint8 of shape (height, width) in mode "L" and (height, width, 3) in mode "RGB".

    Raises ValueError with the reason where there is no such picture, and before anything is decoded where it is too
    large.
    """
    file = opened(content, wanted)
    try:
        image = on_white(ImageOps.exif_transpose(reduced(file))).convert(wanted.mode)
    # The readers of formats fail with any exception when they meet what nobody has foreseen.
    except Exception as error:
        raise damaged(error) from None
    if all(low == high for low, high in np.reshape(image.getextrema(), (-1, 2))):
        raise ValueError("the picture is of one colour, there is nothing on it")
    return np.array(image)


def opened(content: bytes, wanted: Wanted) -> Image.Image:
    """Return the picture with its header read and nothing else. Raises ValueError as `decode` does."""
    if not content:
        raise ValueError("the picture is empty; send the bytes of a file")
    limit = f"may have {wanted.max_pixels:,} pixels; send a smaller one"
    # Above twice this Pillow refuses a picture before it reserves the memory.
    Image.MAX_IMAGE_PIXELS = max(wanted.max_pixels // 2, 1)
    try:
        image = Image.open(io.BytesIO(content), formats=wanted.formats)
    except UnidentifiedImageError:
        accepted = ", ".join(wanted.formats)
        raise ValueError(f"this is not a picture in {accepted}; convert it to one of these") from None
    except Image.DecompressionBombError:
        raise ValueError(f"the picture is too large: it {limit}") from None
    except Exception as error:
        raise damaged(error) from None
    if image.width * image.height > wanted.max_pixels:
        raise ValueError(f"the picture is too large: it has {image.width:,} x {image.height:,} and {limit}")
    return image


def reduced(image: Image.Image) -> Image.Image:
    """Decode a picture and return it with a longer side of at most twice LONGER_SIDE."""
    # JPEG is decoded at a fraction of its size where that is enough.
    image.draft(None, (LONGER_SIDE, LONGER_SIDE))
    image.load()
    if image.mode.startswith("I"):  # grey with 16 bits
        info = {name: value for name, value in image.info.items() if name != "transparency"}
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image.info = info  # where the orientation is
    elif image.mode in ("1", "P", "PA"):  # reducing would average numbers of colours
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
