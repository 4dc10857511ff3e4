"""espeak-ng behind a pipe: requests as JSON lines on stdin, speech on stdout. Standard library only.

espeak-ng is GPL-3.0 (COPYING in its repository), so it runs as a program of its own and no other module loads it.

The library keeps state between utterances (flutter phase, noise generator), so each utterance is synthesised in a
fork of the freshly initialised process: the same request gives the same samples whatever came before it. A crash of
the engine then costs one utterance and is reported, not lost.

Protocol. First a line `{"version": "1.52.0", "sample_rate": 22050}`, or `{"error": ...}` and exit 1. Then per request
`{"text", "voice", "rate", "pitch", "range", "volume", "word_gap"}` a line
`{"num_samples": n, "phones": [[mnemonic, first sample], ...]}` and n int16 samples in native byte order, or a line
`{"error": ...}`. End of input ends it.
"""

import argparse
import ctypes
import ctypes.util
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

# espeak-ng/speak_lib.h
OUTPUT_SYNCHRONOUS = 2  # no audio device, no threads: a fork must not lose a thread the library waits for
INITIALIZE_PHONEME_EVENTS = 0x0001
INITIALIZE_DONT_EXIT = 0x8000
CHARS_UTF8 = 1
EVENT_LIST_TERMINATED = 0
EVENT_PHONEME = 7
PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "range": 4, "word_gap": 7}
SYSTEM_LIBRARIES = ("libespeak-ng.so.1", "libespeak-ng.dylib")


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


class LibraryError(RuntimeError):
    """The library is missing or refuses; the message says which and how to mend it."""


class Library:
    """The loaded library, initialised once."""

    def __init__(self, library: str | None = None) -> None:
        self.library, data = self._load(library)
        self.sample_rate = self.library.espeak_Initialize(
            OUTPUT_SYNCHRONOUS, 0, data, INITIALIZE_PHONEME_EVENTS | INITIALIZE_DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise LibraryError("finds no voice data; reinstall espeakng-loader, or espeak-ng-data")
        self.library.espeak_Info.restype = ctypes.c_char_p
        where = ctypes.c_char_p()
        self.version = self.library.espeak_Info(ctypes.byref(where)).decode().split()[0]
        self.variants = Path(os.fsdecode(where.value or b"")) / "voices" / "!v"
        self._pcm: list[bytes] = []
        self._phones: list[tuple[str, int]] = []
        self.library.espeak_SetVoiceByName(b"en-us")  # loads the dictionary once, not in every fork
        self._callback = _Callback(self._collect)  # kept: the library holds only a bare pointer
        self.library.espeak_SetSynthCallback(self._callback)

    @staticmethod
    def _load(library: str | None) -> tuple[ctypes.CDLL, bytes | None]:
        if library is not None:
            candidates: list[tuple[str, bytes | None]] = [(library, None)]
        else:
            found = ctypes.util.find_library("espeak-ng")
            candidates = [(name, None) for name in (*SYSTEM_LIBRARIES, *([found] if found else []))]
            if importlib.util.find_spec("espeakng_loader") is not None:
                import espeakng_loader

                data = espeakng_loader.get_data_path()
                candidates.insert(0, (str(espeakng_loader.get_library_path()), os.fsencode(data)))
        reasons = []
        for path, data_path in candidates:
            try:
                return ctypes.CDLL(path), data_path
            except OSError as error:
                reasons.append(str(error))
        raise LibraryError(
            "cannot be loaded; pip install espeakng-loader, or install the system package espeak-ng "
            f"({'; '.join(reasons)})"
        )

    def _collect(self, wave: int | None, count: int, events: Any) -> int:
        if wave and count > 0:
            self._pcm.append(ctypes.string_at(wave, 2 * count))
        number = 0
        while events[number].type != EVENT_LIST_TERMINATED:
            if events[number].type == EVENT_PHONEME:
                self._phones.append((events[number].id.string.decode("utf-8", "replace"), events[number].sample))
            number += 1
        return 0

    def say(self, request: dict[str, Any]) -> tuple[bytes, list[tuple[str, int]]]:
        """The PCM of one request and its phones; to be called once per (forked) process."""
        seed_random = getattr(self.library, "espeak_ng_SetRandSeed", None)  # since 1.52; before, the C library's rand
        if seed_random is not None:
            seed_random(ctypes.c_long(1))
        ctypes.CDLL(None).srand(1)
        language, _, variant = request["voice"].partition("+")
        known = not variant or (self.variants / variant).is_file()  # espeak-ng speaks on without an unknown variant
        if not known or not language or self.library.espeak_SetVoiceByName(request["voice"].encode()) != 0:
            raise LibraryError(f"espeak-ng has no voice {request['voice']!r}")
        for name, number in PARAMETERS.items():
            if self.library.espeak_SetParameter(number, int(request[name]), 0) != 0:
                raise LibraryError(f"espeak-ng refuses {name}={request[name]!r}")
        text = request["text"].encode()
        if self.library.espeak_Synth(text, len(text) + 1, 0, 1, 0, CHARS_UTF8, None, None) != 0:
            raise LibraryError(f"espeak-ng cannot speak {request['text']!r}")
        return b"".join(self._pcm), self._phones


def _answer(library: Library, line: bytes, out: BinaryIO) -> None:
    """Synthesise one request in a fork, which writes the answer."""
    child = os.fork()
    if child == 0:
        try:
            pcm, phones = library.say(json.loads(line))
            out.write(json.dumps({"num_samples": len(pcm) // 2, "phones": phones}).encode() + b"\n" + pcm)
        except (LibraryError, KeyError, TypeError, ValueError) as error:
            out.write(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        finally:
            out.flush()
            os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        out.write(json.dumps({"error": f"espeak-ng died with status {status} on {line.decode()!r}"}).encode() + b"\n")
        out.flush()


def main(argv: list[str] | None = None) -> int:
    """Serve requests until the input ends."""
    parser = argparse.ArgumentParser(description="espeak-ng behind a pipe; started by `espeak.Espeak`")
    parser.add_argument("--library", help="libespeak-ng to load instead of the wheel's or the system's")
    arguments = parser.parse_args(argv)
    # The library may print; only our answers may reach the pipe.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        if not hasattr(os, "fork"):
            raise LibraryError("the speech worker needs os.fork; run it on Linux or macOS")
        library = Library(arguments.library)
    except (LibraryError, AttributeError) as error:  # AttributeError: a library without espeak-ng's functions
        out.write(json.dumps({"error": f"{arguments.library or 'espeak-ng'}: {error}"}).encode() + b"\n")
        out.flush()
        return 1
    out.write(json.dumps({"version": library.version, "sample_rate": library.sample_rate}).encode() + b"\n")
    out.flush()
    for line in sys.stdin.buffer:
        _answer(library, line, out)
    return 0


if __name__ == "__main__":
    # Run as a file, its folder comes first on the path; nothing there may shadow a library's module.
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    sys.exit(main())
