"""The quickstart corpus: ShareChatX's shape, made here from a template grammar, espeak-ng and numpy.

`python -m data_prep.quickstart OUT` writes it. Read in this order:

`scripts`        what is said: templates x content words, the reply as a function of the emotion heard, the splits
`voices`         who says it
`prosody`        how it is said: seven emotions as rate, pitch, range, loudness and colour
`sounds`         what else is heard: events and music
`espeak_worker`  the synthesiser, a program of its own
`espeak`         its client: `Espeak.say`, and `speak`, which adds the prosody
`corpus`         the scenes, the audio files and the store
"""
