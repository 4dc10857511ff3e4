"""Speech engines that need no server and no GPU: espeak-ng and flite, and emotion as prosody. Read in this order:

`prosody`        how it is said: seven emotions as rate, pitch, range, loudness and colour; speed and pitch of a style
`engine`         what a speech engine is: `Engine.say`; and `speak`, which adds the prosody
`espeak_worker`  espeak-ng, as a program of its own
`espeak`         its client, and its voices
`flite`          flite and its voices
`backend`        the engines as speech backends of the synthesis
"""
