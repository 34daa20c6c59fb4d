"""The page is for everybody: phones, dark mode, keyboards, screen readers."""

from importlib.resources import files

import gradio as gr
import pytest
from playwright.sync_api import expect

from segmodels.demo import strings
from tests.support.pages import PHONE, ROOT, finished, open_tab, opened, screenshot, settled
from tests.support.serving import free_port

STREET = ROOT / "examples" / "avenue.jpg"
AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
TABS = list(strings.TABS.values())
RULES = {"light": None, "dark": "cat.color"}  # the dark page differs by its colours alone


def violations(page, part="html", rules=None):
    """{rule: the elements of a part that break it, as HTML}, by axe-core.

    rules: a tag of axe's, such as "cat.color"; None: all.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    options = {"resultTypes": ["violations"], "selectors": False}  # much faster
    options |= {"runOnly": [rules]} if rules else {}
    run = "async ([part, options]) => (await axe.run(part, options)).violations"
    found = page.evaluate(run, [part, options])
    return {rule["id"]: [node["html"] for node in rule["nodes"]] for rule in found}


def switch(page, scheme):
    """Change the colours of an open page, as a visitor's system does in the evening."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(
        """dark => document.body.classList.contains("dark") === dark
            && !document.getAnimations().some((each) => each instanceof CSSTransition)""",
        arg=scheme == "dark",
    )


@pytest.fixture(scope="module")
def gradios_own(browser):
    """The rules that a page of Gradio's components alone breaks."""
    with gr.Blocks() as blocks:
        gr.Markdown("# A page")
        image = gr.Image(type="filepath", sources=["upload", "clipboard", "webcam"])
        gr.Examples([[str(STREET)]], inputs=image)
        gr.Radio(["a", "b"], label="Radio", value="a")
        gr.Button("Button", variant="primary")
        with gr.Tabs():
            for name in TABS[:2]:
                with gr.Tab(name):
                    gr.Slider(0, 1, label="Slider")
                    gr.File([str(STREET)], file_count="multiple", interactive=False)
                    gr.Image(str(STREET), interactive=False)
                    gr.Dropdown(["a"], label="Dropdown")
                    gr.Textbox(label="Textbox", placeholder="placeholder")
                    gr.Markdown("```python\npass\n```\n`code` [link](https://example.org)")
    options = {"server_port": free_port(), "ssr_mode": False, "_frontend": False}
    blocks.launch(prevent_thread_lock=True, quiet=True, **options)
    try:
        page = browser.new_page()
        page.goto(blocks.local_url)
        button = page.get_by_role("button", name="Button", exact=True)
        expect(button).to_be_visible(timeout=60_000)
        expect(page.get_by_role("button", name="Settings")).to_be_visible()  # the page's end
        page.wait_for_timeout(300)
        found = {}
        for scheme, rules in RULES.items():
            switch(page, scheme)
            found[scheme] = violations(page, rules=rules)
        page.context.close()
        yield found
    finally:
        blocks.close()


def test_no_rule_of_axe_is_broken_beyond_gradios_own(page, gradios_own):
    finished(page, 900, 600)
    new = {}
    for name in TABS:
        open_tab(page, name)
        if name == strings.TABS["uncertainty"]:
            page.locator("#sample").click()
        settled(page)
        part = "html" if name == TABS[0] else "#tabs"
        for scheme, rules in RULES.items():
            switch(page, scheme)
            for rule, elements in violations(page, part, rules).items():
                ours = [html for html in elements if "viewer" in html or "plot" in html]
                if rule not in gradios_own[scheme] or ours:
                    new[name, scheme, rule] = elements
            if scheme == "light" or name == TABS[0]:
                screenshot(page, f"desktop-{scheme}-{list(strings.TABS)[TABS.index(name)]}")
    assert not new


def test_a_phone_shows_everything_without_scrolling_sideways(browser, tiny_address):
    with opened(browser, tiny_address, size=PHONE) as page:
        finished(page, 900, 600)
        rows = page.locator("#facts tbody tr").all()
        assert all(row.bounding_box()["width"] <= 375 for row in rows)
        expect(page.locator("#facts thead")).to_be_hidden()
        for name in TABS:
            open_tab(page, name)
            settled(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= 375, name
            screenshot(page, f"phone-{list(strings.TABS)[TABS.index(name)]}")
        stages = page.locator("#masks .stage").all()
        assert all(stage.bounding_box()["width"] > 300 for stage in stages)
        page.set_viewport_size({"width": 240, "height": 800})  # the scenes do not fit in a row
        for label in page.locator("#scene label").all():
            box = label.bounding_box()
            assert box["x"] + box["width"] <= 240, label.inner_text()
