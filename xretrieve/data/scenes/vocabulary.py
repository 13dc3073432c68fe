"""The words of the `scenes` pictures: attributes, their colours in RGB, and the ways in which people say them."""

from __future__ import annotations

# shape: ways to say it, singular and plural
SHAPES: dict[str, tuple[tuple[str, str], ...]] = {
    "circle": (("circle", "circles"), ("disc", "discs")),
    "square": (("square", "squares"), ("box", "boxes")),
    "triangle": (("triangle", "triangles"),),
    "star": (("star", "stars"),),
    "heart": (("heart", "hearts"),),
    "ring": (("ring", "rings"), ("hoop", "hoops")),
    "cross": (("cross", "crosses"), ("plus sign", "plus signs")),
    "crescent": (("crescent", "crescents"), ("moon", "moons")),
    "pentagon": (("pentagon", "pentagons"),),
    "arrow": (("arrow", "arrows"),),
    "house": (("house", "houses"), ("hut", "huts")),
    "tree": (("tree", "trees"), ("fir tree", "fir trees")),
    "diamond": (("diamond", "diamonds"), ("rhombus", "rhombuses")),
    "flower": (("flower", "flowers"), ("blossom", "blossoms")),
    "mushroom": (("mushroom", "mushrooms"), ("toadstool", "toadstools")),
}
HOSTS = ("circle", "square", "star", "heart", "ring", "pentagon", "flower")  # still recognisable with a thing in front

# colour: RGB, ways to say it
COLOURS: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]] = {
    "red": ((212, 32, 38), ("red",)),
    "orange": ((246, 134, 22), ("orange",)),
    "yellow": ((246, 218, 34), ("yellow",)),
    "green": ((36, 142, 56), ("green",)),
    "turquoise": ((34, 196, 190), ("turquoise", "teal")),
    "blue": ((34, 80, 206), ("blue",)),
    "purple": ((126, 42, 166), ("purple", "violet")),
    "pink": ((246, 134, 182), ("pink",)),
    "brown": ((122, 74, 34), ("brown",)),
    "black": ((24, 24, 26), ("black",)),
    "white": ((250, 250, 250), ("white",)),
}
LIGHT = ("orange", "yellow", "turquoise", "pink", "white")  # their texture is drawn darker, that of the others lighter

SIZES: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium-sized"),
    "large": ("large", "big"),
}
RADIUS = {"small": 0.084, "medium": 0.118, "large": 0.158}  # half width, as a share of the picture's side

# texture: as an adjective, as an addition behind the noun
TEXTURES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "plain": (("plain",), ()),
    "striped": (("striped", "stripy"), ("with stripes",)),
    "dotted": (("dotted", "spotted"), ("with dots", "with spots")),
    "checked": (("checked", "chequered"), ("with checks",)),
}

# (row, column): ways to say where
PLACES: dict[tuple[int, int], tuple[str, ...]] = {
    (0, 0): ("at the top left", "in the top left corner", "in the upper left"),
    (0, 1): ("at the top centre", "in the middle of the top edge"),
    (0, 2): ("at the top right", "in the top right corner", "in the upper right"),
    (1, 0): ("at the centre left", "halfway down the left edge"),
    (1, 1): ("in the centre", "right in the centre"),
    (1, 2): ("at the centre right", "halfway down the right edge"),
    (2, 0): ("at the bottom left", "in the bottom left corner", "in the lower left"),
    (2, 1): ("at the bottom centre", "in the middle of the bottom edge"),
    (2, 2): ("at the bottom right", "in the bottom right corner", "in the lower right"),
}
ROWS = (("in the top row", "at the top"), ("in the middle row",), ("in the bottom row", "at the bottom"))
COLUMNS = (("on the left", "on the left side"), ("in the middle column",), ("on the right", "on the right side"))

BACKGROUNDS: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]] = {
    "pale blue": ((188, 210, 232), ("pale blue", "light blue")),
    "cream": ((240, 228, 200), ("cream", "cream-coloured")),
    "mint": ((190, 222, 196), ("mint", "pale green")),
    "grey": ((156, 158, 162), ("grey",)),
    "lilac": ((212, 196, 226), ("lilac",)),
    "dark": ((62, 64, 84), ("dark",)),
}

# relation: ways to say "A ... B"
RELATIONS: dict[str, tuple[str, ...]] = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "next to": ("next to", "beside"),
    "in front of": ("in front of",),
    "behind": ("behind",),
}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
