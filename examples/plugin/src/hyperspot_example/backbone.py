"""Magnitudes of a block DCT of the luminance: a backbone without weights."""

import math

import torch
from torch.nn import functional

from hyperspot.backbones import Backbone

GRAY = (0.299, 0.587, 0.114)


class DCT(Backbone):
    """The discrete cosine transform of blocks of 4 x 4 and 8 x 8 pixels, without its constant term."""

    def __init__(self):
        super().__init__("dct", channels=(15, 63), strides=(4, 8), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
        # Not persistent: the filters are computed, not stored, so there are no weights to load.
        for side in self.strides:
            self.register_buffer(f"filters{side}", _filters(side), persistent=False)

    def pyramid(self, images):
        return [
            functional.conv2d(images, self.get_buffer(f"filters{side}").to(images), stride=side).abs()
            for side in self.strides
        ]


def _filters(side):
    places = torch.arange(side, dtype=torch.double)
    waves = torch.cos(math.pi / side * (places + 0.5) * places[:, None]) * math.sqrt(2 / side)
    waves[0] /= math.sqrt(2)
    blocks = torch.einsum("iy,jx->ijyx", waves, waves).flatten(0, 1)[1:]
    return (blocks[:, None] * torch.tensor(GRAY, dtype=torch.double)[:, None, None]).float()
