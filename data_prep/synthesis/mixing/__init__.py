"""From clean turns and a clip to a mixed dialogue in a store.

clips       what may be heard beside the voices: `builtin` and `folder`, whose table `captions` reads
scan        looks through a folder of clips first, with `voice` to find voices in them
scene       which clip is heard in a dialogue, where and how loud
loudness    as BS.1770 measures it
timeline    where turns begin that overlap
mixer       the sum
mix_stage   all that for one dialogue
pack        mixed dialogues as a store
tracks      a store of turns that overlap as two tracks
"""
