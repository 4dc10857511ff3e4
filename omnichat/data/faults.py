"""What is wrong with the audio of a dialogue: the same rules for the scan of a run and for the check of a store."""

import numpy as np
from numpy.typing import NDArray

from omnichat.audio import MIN_SAMPLES, check_whole, load_audio, opened, stored_samples
from omnichat.dialogue import AudioRef, DataError, Dialogue, shown
from omnichat.file_hashes import cached_sha256

# emotion2vec's first frame takes 400 samples (its convolutions' receptive field, Baevski et al. 2020, section 2): a
# shorter clip is no speech, and is silence to that expert.
SHORTEST_SPEECH = 400
# Levels of a clip that is kept but counted. Ours: -60 dB is below the noise of any room; samples within 0.1 % of full
# scale come one by one in a clip that was only made loud, and in a row in one that was cut off.
SILENT_PEAK, FULL_SCALE, CLIPPED_SHARE = 1e-3, 0.999, 1e-3


def duplicate_id(name: str, first: str) -> DataError:
    """The fault of a dialogue whose id another one at the place `first` has already."""
    return DataError("duplicate_id", f"id {shown(name)} is that of {first} too; give each dialogue its own")


def audio_faults(
    dialogue: Dialogue,
    decode: bool = False,
    every_role: bool = False,
    shortest: int = MIN_SAMPLES,
    notices: list[DataError] | None = None,
) -> list[DataError]:
    """What is wrong with the audio of a dialogue, a fault for each turn at most, each with its turn.

    Args:
        dialogue: of a store.
        decode: decode the audio rather than trust its header.
        every_role: of all turns; else of the user's, which alone are heard.
        shortest: samples at 16 kHz below which a clip is a fault.
        notices: takes what is odd about decoded audio, and no fault (`clip_notices`).
    """
    faults = []
    for number, turn in enumerate(dialogue.turns):
        if turn.audio is None or not (every_role or turn.role == "user"):
            continue
        place = f"dialogue {shown(dialogue.id)}: turn {number}"
        try:
            wave = check_audio(turn.audio, decode, shortest)
        except DataError as error:
            faults.append(error.at(place))
            continue
        if wave is not None and notices is not None:
            notices += [notice.at(place) for notice in clip_notices(turn.audio, wave)]
    return faults


def check_audio(ref: AudioRef, decode: bool = False, shortest: int = MIN_SAMPLES) -> NDArray[np.float32] | None:
    """Raise what is wrong with a stretch of an audio file, by its header or by decoding it, which returns the wave.

    Decoding also compares the file with the sha256 of its reference, where that has one. Of audio inside a shard, the
    shard's own sha256 says the same.

    Raises:
        DataError: see `omnichat.audio.load_audio`; `other_bytes` where the sha256 differs.
    """
    if ref.num_samples < shortest:
        message = (
            f"{ref.num_samples} samples at 16 kHz, {ref.num_samples / 16:.1f} ms; at least {shortest} are needed: "
            "cut the clip again, or leave the turn out"
        )
        raise DataError("too_short", message, ref.path)
    there = stored_samples(ref)
    if ref.start + ref.num_samples > there + 2:  # resampling may round a length by a sample
        message = (
            f"{ref.num_samples} samples at 16 kHz from {ref.start} are asked for, the file holds {there}; copy it again"
        )
        raise DataError("truncated", message, ref.path)
    if not decode:
        return None
    wave = load_audio(ref)
    if not ref.size:
        check_whole(ref.path)
    if ref.sha256 and not ref.size and (found := _sha256(ref.path)) != ref.sha256:
        message = f"has sha256 {found[:16]}, the store was made with {ref.sha256[:16]}; copy the file again"
        raise DataError("other_bytes", message, ref.path)
    return wave


def clip_notices(ref: AudioRef, wave: NDArray[np.float32]) -> list[DataError]:
    """What is odd about a clip that is kept as it is: `silent_clip`, `clipped_clip`, `peak_over_one`."""
    import soundfile  # takes a moment, and most of who imports this reads no audio

    level = np.abs(wave)
    peak = float(level.max())
    if peak < SILENT_PEAK:
        return [DataError("silent_clip", f"the peak is {peak:.1g} of full scale; nothing can be heard", ref.path)]
    # Resampling may lift a peak of integers over 1; only floats were written so, and they are cut off nowhere.
    if peak > 1 and soundfile.info(opened(ref)).subtype in ("FLOAT", "DOUBLE"):
        return [DataError("peak_over_one", f"the peak is {peak:.3g}; it is kept, not clipped", ref.path)]
    share = float(np.mean(level >= FULL_SCALE))
    if share >= CLIPPED_SHARE:
        message = f"{share:.1%} of the samples are at full scale; it was recorded or rendered too loud"
        return [DataError("clipped_clip", message, ref.path)]
    return []


def _sha256(path: str) -> str:
    try:
        return cached_sha256(path)
    except OSError as error:
        raise DataError("no_file", f"cannot be read ({error}); check the store's root", path) from None
