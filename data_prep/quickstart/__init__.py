"""The quickstart corpus: ShareChatX's shape, made here from a template grammar, a speech engine and numpy.

`python -m data_prep.quickstart OUT` writes it. Read in this order:

`scripts`        what is said: templates x content words, the reply as a function of the emotion heard, the splits
`prosody`        how it is said: seven emotions as rate, pitch, range, loudness and colour
`sounds`         what else is heard: events and music
`engine`         what a speech engine is: `Engine.say`; and `speak`, which adds the prosody
`espeak_worker`  espeak-ng, as a program of its own
`espeak`         its client, and its voices
`flite`          flite and its voices
`corpus`         the scenes, the audio files and the store
"""
