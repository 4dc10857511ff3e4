"""From a config to objects: the only place where config meets classes.

`made`    what is made for one run: random weights, made-up dialogues
`models`  the prompt, the experts and the model
`data`    stores, the stream of training batches, the dialogues of an evaluation
"""

from omnichat.build.data import (
    build_data,
    eval_dialogues,
    eval_examples,
    scan_data,
    source_weights,
    training_stores,
    validation_stores,
)
from omnichat.build.made import materialise
from omnichat.build.models import (
    DTYPES,
    build_encoders,
    build_event_model,
    build_model,
    build_prompt,
    encoder_dtype,
    encoder_options,
    expert_checkpoints,
    sized_model,
)

__all__ = [
    "DTYPES",
    "build_data",
    "build_encoders",
    "build_event_model",
    "build_model",
    "build_prompt",
    "encoder_dtype",
    "encoder_options",
    "eval_dialogues",
    "eval_examples",
    "expert_checkpoints",
    "materialise",
    "scan_data",
    "sized_model",
    "source_weights",
    "training_stores",
    "validation_stores",
]
