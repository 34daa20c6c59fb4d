"""The examples in docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import segmodels

MODULES = [
    "segmodels",
    *(
        module.name
        for module in pkgutil.walk_packages(segmodels.__path__, "segmodels.")
        if not module.name.endswith("__main__")
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name):
    if name == "segmodels.transformers":
        pytest.importorskip("transformers")
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


def test_the_public_surface_has_examples():
    finder = doctest.DocTestFinder()
    for public in (segmodels.FCN, segmodels.UNet, segmodels.SegNet, segmodels.list_models):
        examples = [example for test in finder.find(public) for example in test.examples]
        assert examples, public
