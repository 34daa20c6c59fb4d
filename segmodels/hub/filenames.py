"""Names of the files of a model repository, on the Hub and under `weights_card/`."""

from huggingface_hub import constants

CONFIG_NAME = constants.CONFIG_NAME
WEIGHTS_NAME = constants.SAFETENSORS_SINGLE_FILE
CARD_NAME = constants.REPOCARD_NAME
PREPROCESSOR_NAME = "preprocessor_config.json"
ONNX_NAME = "model.onnx"
TRAINING_NAME = "training.json"  # the training config and the following two entries
HELD_OUT = "held_out"  # keys of the training images held out for validation, if any
START_TRAINING = "start_training"  # content of training.json of the initial network
EVALUATION_NAME = "evaluation.json"
CARD_INFO_NAME = "card.json"  # additional content of the card: dataset, license, terms
# Files that describe the weights and are uploaded with them.
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
