"""The kinds of problems of annotation files, and which of them make a file's AP wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

KEY_TWICE = "key there twice, of which readers keep the last"
MARK = "byte order mark, which mmdet and pycocotools do not read"
NO_IMAGE = "no image"
IMAGE_TWICE = "image id used twice"
NO_FILE_NAME = "image without a file name"
CATEGORY_TWICE = "category id used twice"
ID_ZERO = "annotation id 0, which COCO's own evaluation takes for no match"
NO_ID = "annotation without an id"
ID_TWICE = "annotation id used twice"
NO_CROWD_MARK = "annotation without iscrowd, which pycocotools needs"
NO_BOX = "object without a box"
NO_AREA = "object without an area"
NO_NUMBERS = "box is not four numbers"
NEGATIVE = "box of a negative side"
AREA_UNLIKE_BOX = "area unlike its box"
AREA_UNLIKE_OUTLINE = "area unlike its outline"
BOX_UNLIKE_OUTLINE = "box unlike its outline"
ALL_CROWDS = "every object is a crowd"
BEFORE_TURN = "size before the EXIF turn that every reader makes"
UNLIKE_FILE = "size unlike the image file's"

# What COCO's protocol would make a figure of that says nothing of the detector. An id that is 0 or lacks is none: AP
# numbers the objects itself. Nor is an object of an image or a category that is not there: no reader looks for it.
WRONG_AP = frozenset({
    KEY_TWICE, NO_IMAGE, IMAGE_TWICE, NO_FILE_NAME, CATEGORY_TWICE, ID_TWICE, NO_BOX, NO_AREA, NO_NUMBERS, NEGATIVE,
    AREA_UNLIKE_BOX, AREA_UNLIKE_OUTLINE, ALL_CROWDS, BEFORE_TURN, UNLIKE_FILE,
})  # fmt: skip
_EXAMPLES = 5


@dataclass
class Problems:
    """Kind of problem -> where it was found, in words."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        """Note one more."""
        self.found.setdefault(kind, []).append(where)

    def line(self, kind: str) -> str:
        """Return one kind in words: how many, and the first of them."""
        places = self.found[kind]
        return f"{kind}: {len(places)} ({'; '.join(places[:_EXAMPLES])}{'; …' if len(places) > _EXAMPLES else ''})"

    def lines(self) -> list[str]:
        """Return a line for each kind."""
        return [self.line(kind) for kind in self.found]
