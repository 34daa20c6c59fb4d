"""Names of the files of a model repository, on the Hub and under `weights_card/`."""

from huggingface_hub import constants

CONFIG_NAME = constants.CONFIG_NAME
WEIGHTS_NAME = constants.SAFETENSORS_SINGLE_FILE
CARD_NAME = constants.REPOCARD_NAME
PREPROCESSOR_NAME = "preprocessor_config.json"
ONNX_NAME = "model.onnx"
TRAINING_NAME = "training.json"  # the training config, and under START_TRAINING the earlier ones
HELD_OUT = "held_out"  # its entry: keys of the training images that validation was on, if any
START_TRAINING = "start_training"  # its entry: the record of the training that it started from
EVALUATION_NAME = "evaluation.json"
CARD_INFO_NAME = "card.json"  # what the card says besides: dataset, license, terms
# What goes along with the weights, and says how they were made and what they can do.
COMPANIONS = (
    EVALUATION_NAME,
    TRAINING_NAME,
    CARD_INFO_NAME,
    "*.png",
    "*.jpg",
    "*.webp",
    "pictures/*",
)
FILES = (CONFIG_NAME, PREPROCESSOR_NAME, WEIGHTS_NAME, ONNX_NAME, CARD_NAME, *COMPANIONS)
