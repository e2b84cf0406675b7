"""Overlays: the defect and the image stay visible, and the numbers are on them."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from hyperspot.errors import DataError, ImageError
from hyperspot.images import InputSize
from hyperspot.results import Verdict
from hyperspot.results.drawing import HALO_COLOR, HEAT_COLORS, OUTLINE_COLOR, STRONGEST, outline, overlay_heatmap
from hyperspot.results.overlays import PAPER, bar_colors, of_image, with_color_bar
from hyperspot.results.pictures import PICTURE_SIDE, report_pictures, small_mask
from hyperspot.results.regions import find_regions

HEIGHT, WIDTH = 300, 400


@pytest.fixture
def verdict() -> Verdict:
    random = np.random.default_rng(0)
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[50:90, 100:180] = True
    mask[290:, 380:] = True
    heatmap = random.uniform(0.1, 0.4, (HEIGHT, WIDTH)).astype(np.float32)
    heatmap[mask] = 2.0
    return Verdict(
        score=2.0,
        p_value=0.01,
        is_anomalous=True,
        mask=mask,
        regions=find_regions(mask, heatmap),
        image=random.integers(90, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8),
        input_map=heatmap,
        letterbox=InputSize(HEIGHT, WIDTH, "contain").letterbox(HEIGHT, WIDTH),
        heat_range=(0.5, 1.5),
        milliseconds=1.0,
        threshold=1.2,
        mask_floor=1.0,
    )


def resized(verdict: Verdict, image: np.ndarray, mask: np.ndarray) -> Verdict:
    """Return a verdict on an image of another size, whose heatmap is cold."""
    letterbox = InputSize(8, 8, "stretch").letterbox(*mask.shape)
    return dataclasses.replace(
        verdict, image=image, mask=mask, input_map=np.zeros((8, 8), np.float32), letterbox=letterbox
    )


@pytest.mark.parametrize("side", [40, 300, 1200])
def test_an_outline_surrounds_the_mask_and_covers_none_of_it(side):
    image = np.full((side, side, 3), 120, np.uint8)
    mask = np.zeros((side, side), dtype=bool)
    mask[side // 4 : side // 2, side // 3 : side // 2] = True
    mask[-side // 10 :, -side // 10 :] = True
    drawn = outline(image, mask)
    changed = (drawn != image).any(-1)
    assert not changed[mask].any()
    line, halo = (drawn == OUTLINE_COLOR).all(-1), (drawn == HALO_COLOR).all(-1)
    np.testing.assert_array_equal(changed, line | halo)
    # Every way out of the region crosses first the line, then the rim.
    row, width = side * 3 // 8, max(1, round(side / 256))
    right = changed[row, side // 2 :]
    assert not right[:width].any()
    assert line[row, side // 2 + width : side // 2 + 2 * width].all()
    assert halo[row, side // 2 + 2 * width]
    assert changed.mean() < 0.15
    assert outline(image, np.zeros_like(mask)).tolist() == image.tolist()


def test_the_heatmap_leaves_typical_pixels_alone_and_keeps_the_image_visible():
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    levels = np.linspace(-1, 3, 60, dtype=np.float32)
    drawn = overlay_heatmap(image, np.tile(levels, (50, 1)), (0.0, 1.0))
    np.testing.assert_array_equal(drawn[:, levels <= 0], image[:, levels <= 0])
    # The contrast of the image is left to 60 % in the hottest pixels, and to nearly all at half of them.
    for level, kept in ((3.0, 0.6), (0.5, 0.85)):
        place = int(np.argmin(abs(levels - level)))
        assert drawn[:, place].std(axis=0) == pytest.approx(kept * image[:, place].std(axis=0), rel=0.05)


def test_styles_show_the_whole_image(verdict):
    assert np.asarray(verdict.overlay(caption=False)).tolist() == outline(verdict.image, verdict.mask).tolist()
    captioned = np.asarray(verdict.overlay())
    strip = captioned.shape[0] - HEIGHT
    assert strip > 12
    np.testing.assert_array_equal(captioned[strip:], outline(verdict.image, verdict.mask))
    heated = overlay_heatmap(verdict.image, verdict.heatmap, verdict.heat_range)
    drawn = np.asarray(verdict.overlay("heatmap", caption=False))
    np.testing.assert_array_equal(drawn[:, :WIDTH], outline(heated, verdict.mask))
    panels = np.asarray(verdict.overlay("side-by-side", caption=False))
    np.testing.assert_array_equal(panels[:, :WIDTH], verdict.image)
    np.testing.assert_array_equal(panels[:, WIDTH + 3 : 2 * WIDTH + 3], heated)
    np.testing.assert_array_equal(panels[:, -WIDTH:, 0], verdict.mask * np.uint8(255))


def test_tints_are_those_of_exact_arithmetic():
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    heatmap = random.uniform(-1, 3, (40, 50)).astype(np.float32)
    level = np.clip((heatmap.astype(np.float64) - 0.5) / 1.5, 0, 1)
    places = np.linspace(0, 1, len(HEAT_COLORS))
    colors = np.stack([np.interp(level, places, channel) for channel in HEAT_COLORS.T], axis=-1)
    strength = (STRONGEST * level**1.5)[..., None]
    exact = image * (1 - strength) + colors * strength
    assert np.abs(overlay_heatmap(image, heatmap, (0.5, 2.0)) - exact).max() < 0.6


def test_an_unknown_style_is_named(verdict):
    with pytest.raises(ValueError, match="no overlay style 'nice'; choose one of outline, heatmap, side-by-side"):
        # Without the check of annotations, which tests add.
        getattr(Verdict.overlay, "__wrapped__", Verdict.overlay)(verdict, "nice")


@pytest.mark.parametrize("side", [8, 64, 700])
@pytest.mark.parametrize("style", ["outline", "heatmap", "side-by-side"])
def test_captions_fit_beside_pictures_of_any_size(verdict, side, style):
    small = resized(verdict, np.full((side, side, 3), 77, np.uint8), np.zeros((side, side), bool))
    drawn = np.asarray(small.overlay(style))
    bare = np.asarray(small.overlay(style, caption=False))
    np.testing.assert_array_equal(drawn[-bare.shape[0] :, : bare.shape[1]], bare)
    strip = drawn[: -bare.shape[0]]
    assert (strip != PAPER).any(-1).any()
    # Nothing is cut off at the right end.
    assert (strip[:, -1] == PAPER).all() or side == 8


def test_the_decision_has_its_color_and_the_numbers_change_the_caption(verdict):
    strips = [
        np.asarray(dataclasses.replace(verdict, **changed).overlay())[:-HEIGHT]
        for changed in (
            {},
            {"is_anomalous": False},
            {"is_anomalous": None, "p_value": None, "threshold": None},
            {"score": 3.0},
        )
    ]
    corners = {tuple(strip[0, 0].tolist()) for strip in strips}
    assert len(corners) == 3
    assert strips[0].shape != strips[3].shape or (strips[0] != strips[3]).any()


def test_the_color_bar_marks_the_threshold_of_the_mask():
    picture = of_image(Image.new("RGB", (100, 200), (9, 9, 9)))
    without, marked = (np.asarray(with_color_bar(picture, (0.0, 1.0), at).to_image()) for at in (None, 0.25))
    assert (without[:, :100] == 9).all()
    column = 100 + 12 // 2
    white = [row for row in range(200) if (marked[row, column] == 255).all()]
    assert {12, 187} <= set(white)
    (line,) = [row for row in white if 20 < row < 180]
    assert line == pytest.approx(12 + 175 * 0.75, abs=1)
    bar = bar_colors(5, 150)
    assert bar[0].tolist() == [150, 150, 150]
    assert len({tuple(color) for color in bar.tolist()}) == 5
    # A threshold outside of the range has no place on the bar.
    assert np.array_equal(np.asarray(with_color_bar(picture, (0.0, 1.0), 7.0).to_image()), without)


def test_saving_writes_the_chosen_style(verdict, tmp_path):
    for style in ("outline", "heatmap", "side-by-side"):
        files = verdict.save(tmp_path, style, overlay=style)
        saved = np.asarray(Image.open(files["overlay"]))
        np.testing.assert_array_equal(saved, np.asarray(verdict.overlay(style)))


def test_an_overlay_in_jpeg_looks_like_that_in_png(verdict, tmp_path):
    ramp = np.linspace(60, 180, WIDTH).astype(np.uint8)
    verdict = dataclasses.replace(verdict, image=np.broadcast_to(ramp[:, None], (HEIGHT, WIDTH, 3)).copy())
    files = verdict.save(tmp_path, "part", overlay="outline", overlay_format="jpeg")
    assert files["overlay"] == tmp_path / "part.overlay.jpg"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "part.heatmap.png", "part.json", "part.mask.png", "part.overlay.jpg",
    ]  # fmt: skip
    with Image.open(files["overlay"]) as saved:
        assert saved.format == "JPEG"
        difference = np.asarray(saved).astype(int) - np.asarray(verdict.overlay("outline"))
    assert np.abs(difference).mean() < 2
    with pytest.raises(DataError, match=r"part\.overlay\.jpg already exists"):
        verdict.save(tmp_path, "part", overlay_format="jpeg")


def test_overwriting_leaves_no_overlay_of_the_other_format(verdict, tmp_path):
    others = verdict.save(tmp_path, "other")
    for chosen, ending in (("png", "png"), ("jpeg", "jpg"), ("png", "png")):
        files = verdict.save(tmp_path, "part", overwrite=True, overlay_format=chosen)
        assert list(tmp_path.glob("part.overlay.*")) == [files["overlay"]] == [tmp_path / f"part.overlay.{ending}"]
    # Without permission to overwrite, nothing is removed.
    with pytest.raises(DataError, match=r"part\.heatmap\.png already exists"):
        verdict.save(tmp_path, "part", overlay_format="jpeg")
    assert files["overlay"].exists()
    assert others["overlay"].exists()


@pytest.mark.parametrize(("height", "width"), [(65_500, 8), (4, 65_501), (4, 21_834)])
def test_an_overlay_too_large_for_jpeg_is_an_error_before_anything_is_written(verdict, tmp_path, height, width):
    mask = np.zeros((height, width), bool)
    long = resized(verdict, np.full((height, width, 3), 128, np.uint8), mask)
    # The caption adds rows, and three pictures lie side by side.
    style = "side-by-side" if width == 21_834 else "outline"
    with pytest.raises(ImageError, match=r"long\.overlay\.jpg would have .*choose png as the format of overlays"):
        long.save(tmp_path / "out", "long", overlay=style, overlay_format="jpeg")
    assert not (tmp_path / "out").exists()


def test_pictures_of_the_report_are_small_and_keep_tiny_defects(verdict):
    big = np.zeros((1000, 2000), bool)
    big[500, 1000] = True
    truth = np.zeros_like(big)
    wide = resized(verdict, np.full((*big.shape, 3), 128, np.uint8), big)
    image, heated, outlined = (Image.open(io.BytesIO(one)) for one in report_pictures(wide, truth))
    assert image.size == heated.size == outlined.size == (PICTURE_SIDE, PICTURE_SIDE // 2)
    difference = np.abs(np.asarray(outlined).astype(int) - np.asarray(image)).max(-1) > 40
    assert 5 < difference.sum() < 200


def test_one_defective_pixel_of_a_huge_mask_stays():
    mask = np.zeros((9000, 7000), bool)
    mask[8999, 6999] = True
    small = small_mask(mask, (384, 299))
    assert small.sum() == 1
    assert small[-1, -1]
