"""Tools for COCO data sets: a drawn one, parts of one, label maps, checks."""
