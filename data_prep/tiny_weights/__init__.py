"""The tiny frozen weights of the quickstart, made from nothing: `python -m data_prep.tiny_weights OUT`.

`words`      the vocabulary
`speech`     utterances with the labels that a synthesiser gives for free
`experts`    Whisper (phones and words), emotion2vec (emotions), BEATs (sounds)
`language`   the Llama, on dialogues with written stage directions
`optimise`   the training loop of all four
`make`       one after the other
"""
