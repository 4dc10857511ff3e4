"""Memory, seconds and hours of a recipe on GPUs that one does not have yet: `python -m omnichat.training.estimate`.

`counted`    what is counted, and the table of docs/hardware.md
`__main__`   the command, whose `--help` need not wait for torch
"""
