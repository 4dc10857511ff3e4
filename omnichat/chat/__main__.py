"""The command: a dialogue at the prompt."""

import sys
from typing import TYPE_CHECKING

from omnichat.dialogue import DataError
from omnichat.secrets import mask_output

if TYPE_CHECKING:
    from omnichat.chat.chat import Chat

WEIGHTS = ("llm", "whisper", "emotion2vec", "beats")
USAGE = """python -m omnichat.chat run=runs/NAME [checkpoint=newest|best|STEP] [llm=PATH] [whisper=PATH] ...

NAME is a run, or what omnichat.export made of one; llm=, whisper=, emotion2vec= and beats= say where frozen weights lie
that are not where they were in training.

Then, at each prompt, the path of an audio file (the run's input=speech), words (input=text), or
PATH | WORDS (input=speech+text); /reset begins a new dialogue, /quit or Ctrl-D ends.

With serve=PORT instead a page in the browser of this machine, with its microphone: http://127.0.0.1:PORT. For a run on
another machine: ssh -L PORT:127.0.0.1:PORT MACHINE, and the page is at the same address.

example: python -m omnichat.chat run=runs/quickstart
         python -m omnichat.chat run=runs/quickstart serve=8000"""
KEYS = ("run", "checkpoint", "serve", *WEIGHTS)
TURNS = {"speech": "the path of one", "speech+text": "PATH | WORDS"}


def main() -> int:
    """The command line."""
    mask_output()
    if "--help" in sys.argv:
        print(USAGE)
        return 0
    values = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    wrong = [argument for argument in sys.argv[1:] if argument.partition("=")[0] not in KEYS or "=" not in argument]
    if wrong or "run" not in values:
        fault = f"{', '.join(wrong)}: not an option" if wrong else "run: is missing"
        print(f"chat: {fault}", file=sys.stderr)
        print(USAGE)
        return 2
    if not (port := values.get("serve", "0")).isdecimal() or int(port) > 65_535:
        print(f"chat: serve={port}: is not a port; name one from 1 to 65535", file=sys.stderr)
        return 2
    from omnichat.chat.chat import Chat  # torch and transformers: help and mistakes need not wait for them

    try:
        weights = {name: values[name] for name in WEIGHTS if name in values}
        chat = Chat.load(values["run"], values.get("checkpoint", "newest"), weights)
    except (ValueError, OSError) as error:
        print(f"chat: {error}", file=sys.stderr)
        return 1
    if "serve" in values:
        return _serve(chat, int(port))
    while True:
        try:
            line = input("you> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return 0
        if line == "/quit":
            return 0
        try:
            if line == "/reset":
                chat.reset()
            elif line:
                _answer(chat, line)
        except KeyboardInterrupt:  # what the cache holds of the turn cannot be told
            chat.reset()
            print("\ninterrupted; a new dialogue begins")


def _serve(chat: "Chat", port: int) -> int:
    """Answer the browser until Ctrl-C."""
    from omnichat.chat.server import HOST, ChatServer

    try:
        server = ChatServer(chat.run, port)
    except OSError as error:
        print(f"chat: {HOST}:{port} cannot be listened on ({error.strerror}); serve= another port", file=sys.stderr)
        return 1
    print(f"{server.address}  (Ctrl-C ends)", flush=True)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def _answer(chat: "Chat", line: str) -> None:
    """Print the reply as it is written, once its style can be read."""
    heard, _, words = line.partition("|")
    written = chat.run.prompt.input == "text"
    shown, said = "", ""
    try:
        for reply in chat.stream(text=line) if written else chat.stream(heard.strip(), words.strip()):
            style = "unreadable style" if reply.style is None else ", ".join(reply.style.known().values())
            said = f"({style}): {reply.text}"
            if reply.style is not None:
                print(said[len(shown) :], end="", flush=True)
                shown = said
    except DataError as error:
        said = f"error: {error}"
        if error.reason == "no_file":  # there is no store here, and whoever typed words wants to know why
            said = f"error: {heard.strip()}: no such audio file; type {TURNS[chat.run.prompt.input]}"
    print(said[len(shown) :])


if __name__ == "__main__":
    sys.exit(main())
