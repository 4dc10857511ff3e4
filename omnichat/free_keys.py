"""Which keys of a run's config may differ where two configs have to be of one run, one result or one model.

Dotted names; a section stands for all its keys.
"""

# How a run is called, started and shown, and how its data is read: neither what it learns nor how it is computed.
_AROUND = ("run_name", "resume", "preflight", "threads", "logger", "data.num_workers", "data.features_dir")

# A run that goes on may change these, and what it writes or is scored on; never what it learns from, or what learns.
# Of the trainer all is free but the dialogues of a step.
RESUMED = (*_AROUND, "evaluation", "data.test")
RESUMED_FIXED = ("trainer.dialogues_per_step", "trainer.tokens_per_step")

# How a result is computed, not what it is: other devices, or what only makes it faster.
SAME_RESULT = (
    *_AROUND,
    *("evaluation.batch_size", "trainer.micro_batch", "trainer.micro_batch_tokens", "trainer.log_every"),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.compile"),
    *("trainer.compile_experts", "trainer.shared_prefix", "trainer.activation_checkpointing"),
)

# Trained weights fit a model with others of these; where its frozen weights lie (`*.checkpoint`) is free too.
SAME_MODEL = ("model.random", "model.lora.dropout", "model.llm.dtype")


def free_on_resume(key: str) -> bool:
    """Whether a run that goes on may change this key."""
    return key in RESUMED or (key.startswith("trainer.") and key not in RESUMED_FIXED)


def free_for_weights(key: str) -> bool:
    """Whether trained weights fit a model whose config differs in this key."""
    return key in SAME_MODEL or key.endswith(".checkpoint")
