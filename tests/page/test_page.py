"""The pages in a browser: nothing is loaded or logged, the cursor is one, and the switch swaps the images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from monai.data import MetaTensor
from PIL import Image
from playwright.sync_api import Page, expect
from scripts.handlers.pictures import upright
from scripts.reports.scan import INTERPOLATION, RESULT

CURSORS = "viewer.panes.map((pane) => viewer.place(pane))"
WINDOWS = "viewer.panes.map((pane) => [pane.volumes[0].cal_min, pane.volumes[0].cal_max])"


def captions(page: Page) -> list[str]:
    return [page.locator(f"#caption-{pane}").inner_text() for pane in (0, 1)]


def picture(page: Page, pane: int) -> np.ndarray:
    page.wait_for_timeout(300)  # the next frame
    shot = page.locator("#panes figure").nth(pane).screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("L"), dtype=float)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of two pictures in grey levels; the panes' heights may differ by a fraction of a pixel."""
    rows = min(len(one), len(other))
    return float(np.abs(one[:rows] - other[:rows]).mean())


SAME, OTHER = 0.3, 1.0  # grey levels


def slide(page: Page, name: str, value: float) -> None:
    page.locator(f"#{name}").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", value
    )


def test_a_page_shows_interpolation_and_result(viewer):
    page = viewer()
    assert captions(page) == [INTERPOLATION, RESULT]
    expect(page.locator("#stills")).not_to_have_attribute("open", "")
    assert difference(picture(page, 0), picture(page, 1)) > OTHER


@pytest.mark.parametrize("pane", [0, 1])
def test_the_cursor_stands_at_the_same_place_of_the_world_in_both_panes(viewer, pane):
    page = viewer()
    before = page.evaluate(CURSORS)
    box = page.locator(f"#pane-{pane}").bounding_box()
    page.mouse.click(box["x"] + 0.42 * box["width"], box["y"] + 0.55 * box["height"])
    first, second = page.evaluate(CURSORS)
    assert np.abs(np.subtract(first, before[0])).max() > 1
    np.testing.assert_allclose(first, second, atol=1e-3)
    page.mouse.wheel(0, 100)  # the canvas has the focus now
    first, second = page.evaluate(CURSORS)
    np.testing.assert_allclose(first, second, atol=1e-3)


def test_the_intensities_at_the_cursor_are_those_of_the_scan(viewer, images):
    page = viewer()
    for place in ([18.0, 20.0, 22.0], [25.0, 14.0, 19.0]):
        result: MetaTensor = upright(images[RESULT], images[RESULT].affine)
        mm = (result.affine.numpy() @ [*place, 1.0])[:3].tolist()
        page.evaluate("(mm) => viewer.panes.forEach((pane) => { pane.scene.crosshairPos = pane.mm2frac(mm); })", mm)
        found = page.evaluate("viewer.panes.map((pane) => viewer.value(pane, 0))")
        at = (0, *map(int, place))
        expected = [float(images[title][at]) for title in (INTERPOLATION, RESULT)]
        assert abs(expected[0] - expected[1]) > 5
        assert found == pytest.approx(expected, abs=4)  # a level of 8 bits


@pytest.mark.parametrize("way", ["button", "space bar"])
def test_the_switch_swaps_the_panes(viewer, way):
    page = viewer()
    first, second = picture(page, 0), picture(page, 1)
    if way == "button":
        page.locator("#switch").click()
    else:
        page.locator("#pane-0").focus()
        page.keyboard.press("Space")
    assert captions(page) == [RESULT, INTERPOLATION]
    assert difference(first, second) > OTHER
    assert difference(picture(page, 0), second) < SAME
    assert difference(picture(page, 1), first) < SAME


def test_contrast_and_zoom_are_those_of_both_panes(viewer):
    page = viewer()
    plain = picture(page, 1)
    slide(page, "white", 400)
    first, second = page.evaluate(WINDOWS)
    assert first == second
    assert difference(picture(page, 1), plain) > OTHER
    slide(page, "zoom", 3)
    assert page.evaluate("viewer.panes.map((pane) => pane.scene.pan2Dxyzmm[3])") == [3, 3]
    page.locator("#reset").click()
    assert difference(picture(page, 1), plain) < SAME


def test_an_error_map_covers_each_image_that_has_one(viewer):
    page = viewer()
    plain = picture(page, 0)
    page.locator("#map").select_option(label="error")
    assert captions(page) == [f"{INTERPOLATION} with error", f"{RESULT} with error"]
    errors = page.evaluate("viewer.panes.map((pane) => pane.volumes[1].img.reduce((a, b) => Math.max(a, b), 0))")
    assert errors == [255, 255]
    assert difference(picture(page, 0), plain) > OTHER
    page.locator("#map").select_option(label="contradiction of the scan")
    assert captions(page) == [INTERPOLATION, f"{RESULT} with contradiction of the scan"]


def test_a_single_plane_stands_side_by_side(viewer):
    page = viewer()
    page.locator("#planes").select_option(label="axial")
    first, second = (page.locator("#panes figure").nth(pane).bounding_box() for pane in (0, 1))
    assert first["y"] == second["y"]
    assert first["x"] + first["width"] <= second["x"]


def test_the_detail_can_be_chosen_where_it_was_asked_for(viewer):
    assert viewer().locator("#part").is_hidden()
    page = viewer("unknown scan.html")
    assert page.locator("#part").is_visible()
    page.locator("#part").select_option(label="detail")
    page.wait_for_function("viewer.panes[1].volumes.length == 2")
    assert difference(picture(page, 0), picture(page, 1)) > OTHER


def test_without_webgl_the_still_pictures_are_shown(open_page, folder):
    page = open_page(folder / "known.html", webgl=False)
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator(".fallback")).to_be_visible()
    expect(page.locator("#stills img")).to_be_visible()


def test_warnings_come_first_in_words(open_page, folder):
    page = open_page(folder / "unknown scan.html", webgl=False)
    expect(page.locator("main > :first-child")).to_contain_text("Its spacing is <new>.")


def test_the_index_leads_to_the_pages_those_with_a_warning_first(open_page, folder):
    page = open_page(folder / "index.html", webgl=False)
    assert page.locator(".card h3").all_inner_texts() == ["unknown", "known"]
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    page.locator(".card h3 a").first.click()
    expect(page.locator("h1")).to_have_text("unknown")
