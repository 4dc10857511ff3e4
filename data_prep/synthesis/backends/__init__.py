"""Who does the work of the stages: language models, speech synthesisers, recognisers and checkers.

Each kind is one small interface; behind it stands a program of its own (`embedded`), a server, or a model from a local
folder. All of them are made from settings, opened once per worker, and say by `identity()` what their results hang on.

`http`           requests to servers: several endpoints, retries, limits
`chat`           language models behind an OpenAI-compatible server
`speech`         what a speech backend is; `make_speech`
`embedded`       espeak-ng and flite, which run anywhere
`openai_speech`, `cosyvoice`   speech servers; `instructions/` holds how each is asked for a style
`recognise`      what was heard: Whisper, a server, pocketsphinx; `words` compares it with what was to be said
`checker`        what these three share; a model is known by its name and the hash of its files
`speaker_check`  whether it is the speaker's voice
`emotion_check`  whether the emotion is heard
`gates`          what a recording must pass: its form, and what the checkers say
"""
