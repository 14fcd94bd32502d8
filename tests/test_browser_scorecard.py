"""The filters of the scorecard, in a browser."""

from __future__ import annotations

import pytest
from browsing import Visit, needs_browser
from playwright.sync_api import Browser, Page

pytestmark = needs_browser
on_scorecard = pytest.mark.parametrize(("path", "width"), [("book/scorecard.html", 1280)])


def shown_claims(page: Page) -> list[str]:
    """The ids of the claims that are visible on the scorecard."""
    return page.locator("section:has(> .claim-verdict)").evaluate_all(
        "cards => cards.filter(it => it.checkVisibility()).map(it => it.id)"
    )


def ids(page: Page, selector: str) -> list[str]:
    """The ids of the elements that fit."""
    return page.locator(selector).evaluate_all("found => found.map(it => it.id)")


@on_scorecard
def test_a_filter_hides_the_other_claims_and_the_address_keeps_it(visit: Visit) -> None:
    page, everything = visit.page, shown_claims(visit.page)
    page.get_by_label("Verdict").select_option("not tested")
    some = shown_claims(page)
    assert some == ids(page, "section:has(> [data-verdict='not tested'])")
    assert 0 < len(some) < len(everything)
    count = page.locator("#claim-filter [aria-live]")
    assert count.inner_text() == f"{len(some)} of {len(everything)} claims shown"
    page.goto("about:blank")
    page.go_back()
    assert page.get_by_label("Verdict").input_value() == "not tested"
    assert shown_claims(page) == some
    page.get_by_role("button", name="Show all").press("Enter")
    page.wait_for_function("!location.hash")
    assert shown_claims(page) == everything


@on_scorecard
def test_filters_are_worked_with_the_keyboard_and_together(visit: Visit) -> None:
    page = visit.page
    for label in ("Verdict", "Scale"):
        page.get_by_label(label).focus()
        page.keyboard.press("ArrowDown")
    verdict, scale = (page.get_by_label(label).input_value() for label in ("Verdict", "Scale"))
    fits = f"section:has(> [data-verdict='{verdict}'][data-scale='{scale}'])"
    assert shown_claims(page) == ids(page, fits)
    for heading in page.locator("#the-claims > section").all():
        assert heading.is_visible() == bool(heading.locator(fits).count())


@on_scorecard
def test_an_address_with_a_claim_opens_it_though_it_is_filtered_out(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("Verdict").select_option("not tested")
    hidden = page.locator("section[hidden]:has(> .claim-verdict)").first.get_attribute("id")
    page.evaluate(f"location.hash = '{hidden}'")
    page.locator(f"#{hidden}").wait_for(state="visible")
    assert page.locator(f"#{hidden} .claim-verdict").is_visible()


@pytest.mark.parametrize(
    ("path", "width"), [("book/chapters/03_connection_sensitivity.html", 1280)]
)
def test_ids_in_the_tables_of_chapters_lead_to_the_scorecard(visit: Visit) -> None:
    visit.page.locator("td a[href$='#snip-product']").click()
    visit.page.wait_for_url("**/book/scorecard.html#snip-product")
    assert visit.page.locator("#snip-product .claim-verdict").is_visible()


def test_the_scorecard_shows_everything_without_scripts(browser: Browser, address: str) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{address}/book/scorecard.html")
    assert len(shown_claims(page)) == page.locator(".claim-verdict").count() > 0
    assert page.locator("#claim-filter > *").count() == 0
    page.close()
