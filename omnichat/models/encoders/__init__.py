"""The three frozen experts: Whisper for words, emotion2vec for feeling, BEATs for everything else that sounds.

Others may stand beside them (`own`).

```
encoder = load_encoder("beats", "checkpoints/BEATs_iter3_plus_AS2M.pt")
frames, lengths = encoder(waves, wave_lengths)  # (A, S) at 16 kHz, (A,) samples -> (A, N, D), (A,) frames
```
"""

from collections.abc import Callable
from pathlib import Path

from omnichat.models.encoders.base import Encoder, EncoderNet
from omnichat.models.encoders.beats import load_beats
from omnichat.models.encoders.checkpoint_files import EncoderError
from omnichat.models.encoders.converted import is_converted, load_converted
from omnichat.models.encoders.emotion2vec import load_emotion2vec
from omnichat.models.encoders.own import load_own, own_options, register_encoder
from omnichat.models.encoders.whisper import load_whisper

__all__ = ["ENCODERS", "Encoder", "EncoderError", "EncoderNet", "load_encoder", "own_options", "register_encoder"]

# name -> (loader, {option: allowed values, the default first})
ENCODERS: dict[str, tuple[Callable[..., Encoder], dict[str, tuple[str, ...]]]] = {
    "whisper": (load_whisper, {"context": ("pad30", "trim")}),
    "emotion2vec": (load_emotion2vec, {}),
    "beats": (load_beats, {"layout": ("tokens", "time")}),
}


def load_encoder(name: str, checkpoint: str | Path, **options: str) -> Encoder:
    """A frozen encoder from upstream's own file format.

    Args:
        name: `whisper` (openai-whisper .pt, or a Hugging Face folder), `emotion2vec` (a FunASR folder) or
            `beats` (a unilm .pt); or the folder that `data_prep.convert_encoder` made of one. Any other
            name is one of your own (`register_encoder`).
        checkpoint: the file or folder.
        options: whisper: `context="pad30"` (as trained) or `"trim"` (the clip alone: cheaper, another function).
            beats: `layout="tokens"` (8 bands of each time step in turn) or `"time"` (their mean, 8 times).

    Raises:
        ValueError: for an option or value that does not exist.
        EncoderError: for a checkpoint that cannot be used; lists all that does not fit.
    """
    if name not in ENCODERS:
        return load_own(name, Path(checkpoint))
    load, allowed = ENCODERS[name]
    for option, value in options.items():
        if option not in allowed:
            raise ValueError(f"{name} has no option {option!r}; it has {', '.join(allowed) or 'none'}")
        if value not in allowed[option]:
            raise ValueError(f"{name}: {option}={value!r} is none of {', '.join(allowed[option])}")
    path = Path(checkpoint)
    return load_converted(name, path, **options) if is_converted(path) else load(path, **options)
