"""COCO's categories: 80 in use, numbered 1 to 90 with gaps.

Two ways to count them meet in detectors. *Contiguous* labels run from 0 to 79, as mmdet has them. *COCO's own
ids* used as labels need 91 outputs, 0 to 90, of which eleven are never right; DETR and its offspring have those.
"""

from __future__ import annotations

COUNT_91 = 91  # outputs of a head whose labels are COCO's own ids

_NAMES = {
    "person": "person",
    "vehicle": "bicycle, car, motorcycle, airplane, bus, train, truck, boat",
    "outdoor": "traffic light, fire hydrant, -, stop sign, parking meter, bench",
    "animal": "bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe",
    "accessory": "-, backpack, umbrella, -, -, handbag, tie, suitcase",
    "sports": "frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,"
    " tennis racket",
    "kitchen": "bottle, -, wine glass, cup, fork, knife, spoon, bowl",
    "food": "banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake",
    "furniture": "chair, couch, potted plant, bed, -, dining table, -, -, toilet",
    "electronic": "-, tv, laptop, mouse, remote, keyboard, cell phone",
    "appliance": "microwave, oven, toaster, sink, refrigerator",
    "indoor": "-, book, clock, vase, scissors, teddy bear, hair drier, toothbrush",
}


def categories() -> list[dict[str, int | str]]:
    """Return the 80 categories as COCO's files list them.

    >>> categories()[79]
    {'supercategory': 'indoor', 'id': 90, 'name': 'toothbrush'}
    """
    slots = [(group, name.strip()) for group, names in _NAMES.items() for name in names.split(",")]
    return [
        {"supercategory": group, "id": number, "name": name}
        for number, (group, name) in enumerate(slots, start=1)
        if name != "-"
    ]


NAMES = tuple(str(category["name"]) for category in categories())
IDS = tuple(int(category["id"]) for category in categories())  # contiguous label -> COCO id
LABELS = {number: label for label, number in enumerate(IDS)}  # COCO id -> contiguous label
NAMES_91 = tuple(NAMES[LABELS[number]] if number in LABELS else f"unused {number}" for number in range(COUNT_91))
