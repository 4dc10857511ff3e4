"""A trained run in the formats that others read: `python -m omnichat.export run=runs/NAME out=FOLDER`.

`formats`    what is written
`__main__`   the command, whose `--help` and mistakes need not wait for torch
"""
