"""CFA in slow float64 NumPy, for the tests of its parts."""

import itertools

import numpy as np
from scipy import ndimage

from hyperspot.methods.cfa import CFA
from hyperspot.methods.cfa_settings import CFASettings
from hyperspot.utils.progress import SILENT


def fitted(backbone, images, **settings):
    method = CFA(backbone, CFASettings(**settings))
    method.fit([images[:4], images[4:]], seed=3, progress=SILENT)
    return method


def pooled(level: np.ndarray) -> np.ndarray:
    """3 x 3 mean with zeros outside."""
    return ndimage.uniform_filter(level, size=(1, 1, 3, 3), mode="constant")


def upsampled(level: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with half-pixel centers, one output pixel at a time."""
    result = np.zeros((*level.shape[:2], height, width))
    for row, column in itertools.product(range(height), range(width)):
        y = max((row + 0.5) * level.shape[2] / height - 0.5, 0)
        x = max((column + 0.5) * level.shape[3] / width - 0.5, 0)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, level.shape[2] - 1), min(left + 1, level.shape[3] - 1)
        down, across = y - top, x - left
        result[:, :, row, column] = (
            level[:, :, top, left] * (1 - down) * (1 - across)
            + level[:, :, top, right] * (1 - down) * across
            + level[:, :, bottom, left] * down * (1 - across)
            + level[:, :, bottom, right] * down * across
        )
    return result


def averaged(level: np.ndarray, cell: int) -> np.ndarray:
    """Mean of cells of a map whose sides are multiples of the cell."""
    height, width = level.shape[2] // cell, level.shape[3] // cell
    return level.reshape(*level.shape[:2], height, cell, width, cell).mean((3, 5))


def patch_features(backbone, images, levels, divisors=(1, 1, 1), grid=2) -> np.ndarray:
    """Features with the two coordinates appended, image x position x channel, float64; grid: the finest level kept."""
    pyramid = [level.double().numpy() for level in backbone(images)]
    chosen = [averaged(pooled(pyramid[level - 2]) / divisors[level - 2], 2 ** max(0, grid - level)) for level in levels]
    height, width = chosen[0].shape[2:]
    grid = np.concatenate([upsampled(level, height, width) for level in chosen], axis=1)
    flat = grid.reshape(*grid.shape[:2], -1).transpose(0, 2, 1)
    rows, columns = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    places = np.stack([rows.ravel(), columns.ravel()], axis=1)
    return np.concatenate([flat, np.broadcast_to(places, (len(images), *places.shape))], axis=2)


def default_features(backbone, images) -> np.ndarray:
    """The same of the variant `default`: all levels on the grid of level 3."""
    return patch_features(backbone, images, (2, 3, 4), grid=3)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.stack([((b - row) ** 2).sum(1) for row in a])


def described(method, features: np.ndarray) -> np.ndarray:
    return features @ method.weight.double().numpy().T + method.bias.double().numpy()


def memory(method) -> np.ndarray:
    return (method.bank + method.center).double().numpy()


def algorithm_1_of_the_paper(images, start: np.ndarray, beta: float) -> np.ndarray:
    """The loop of Algorithm 1 from given centers: greedy one-to-one matches and the moving average of each image."""
    bank = start.astype(np.float64)
    for patches in images:
        free = list(range(len(patches)))
        matched = []
        for center in bank:
            nearest = min(free, key=lambda patch: ((patches[patch] - center) ** 2).sum())
            free.remove(nearest)
            matched.append(patches[nearest])
        bank = (1 - beta) * bank + beta * np.stack(matched)
    return bank
