"""Everything in this folder drives a browser."""

from pathlib import Path

import pytest

from tests.support.pages import (  # noqa: F401
    address,
    browser,
    page,
    page_of_the_file,
    published,
    served,
    shared_page,
    tiny_address,
)


@pytest.hookimpl(tryfirst=True)  # before tests/conftest.py, which asks for the marker
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.browser)
