"""A picture file is one instance, where an instance is one picture; its prediction is a JSON document."""

from serving import picture
from serving.fields import Field
from serving.files.text import OneInstance

SUFFIXES = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "WEBP": (".webp",)}


class Picture(OneInstance):
    """A file with one picture, which `serving.picture` decodes."""


def suffixes(field: Field) -> list[str]:
    """Return how the names of the pictures that `field` takes may end."""
    return [suffix for name in picture.wanted(field).formats for suffix in SUFFIXES[name]]
