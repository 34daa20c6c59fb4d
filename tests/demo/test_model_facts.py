"""What the table of networks says."""

from dataclasses import replace

import pytest

from segmodels.demo import html, model_facts
from segmodels.demo.model_facts import Measured, measured
from segmodels.models.registry import architectures

CARD = """---
library_name: segmodels
model-index:
- name: unet-cells
  results:
  - task:
      type: image-segmentation
    dataset:
      name: Cells
      type: cells
      split: test
    metrics:
    - type: mean_iou
      value: {value}
      name: mean IoU
---
# U-Net
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "README.md").write_text(CARD.format(value=0.25))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_every_architecture_has_its_paper():
    assert set(model_facts.PAPERS) == set(architectures())


def test_the_metric_is_that_of_the_model_card(folder, tmp_path_factory):
    assert measured(str(folder)) == Measured(0.25, "Cells test")
    other = tmp_path_factory.mktemp("other")
    assert measured(str(other)) is None
    (other / "README.md").write_text("# Without metadata")
    measured.cache_clear()
    assert measured(str(other)) is None
    (other / "README.md").write_text(CARD.format(value="high"))
    measured.cache_clear()
    assert measured(str(other)) is None


def test_cards_are_on_the_hub_or_with_the_code(networks, folder):
    hub = replace(networks[0], source="org/fcn-camvid")
    assert model_facts.card_address(hub) == "https://huggingface.co/org/fcn-camvid"
    assert model_facts.card_address(replace(networks[0], source=str(folder))) is None
    own = model_facts.Path(model_facts.__file__).parents[2] / "weights_card" / "fcn-camvid"
    if own.is_dir():
        address = model_facts.card_address(replace(networks[0], source=str(own)))
        assert address.endswith("/weights_card/fcn-camvid/README.md")


def test_the_table_has_a_row_for_each_network(networks, folder):
    known = replace(networks[1], source=str(folder))
    table = html.networks_table([known], {known.source: (0.1234, 3)})
    for text in ("mean IoU, Cells test", "25.0 %", "0.12 s", ">2015<", "model of U-Net"):
        assert (text in table) == (text != "model of U-Net")
    assert 'href="https://arxiv.org/abs/1505.04597"' in table
    assert 'aria-label="code of U-Net"' in table
    assert "model card" not in table  # a folder of one's own has no address
    both = html.networks_table([known, networks[0]], {})
    assert both.count("<tr>") == 3
    assert '<td data-label="median time">-</td>' in both
