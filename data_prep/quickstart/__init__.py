"""The quickstart corpus: ShareChatX's shape, made here from a template grammar, a speech engine and numpy.

`python -m data_prep.quickstart OUT` writes it. Read in this order:

`scripts`  what is said: templates x content words, the reply as a function of the emotion heard, the splits
`sounds`   what else is heard: events and music
`corpus`   the scenes, the audio files and the store

Who speaks, and how, is in `data_prep.synthesis.backends.embedded`.
"""
