"""Who does the work of the stages: language models, speech synthesisers, recognisers and checkers.

Each kind is one small interface; behind it stands a program of its own (`embedded`), a server, or a model from a local
folder. All of them are made from settings, opened once per worker, and say by `identity()` what their results hang on.

`http`           requests to servers: several endpoints, retries, limits
`chat`           language models behind an OpenAI-compatible server
`speech`         what a speech backend is; `make_speech`
`embedded`       espeak-ng and flite, which run anywhere
`gates`          what a recording must pass
"""
