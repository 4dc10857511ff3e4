"""From clean turns and a clip to a mixed dialogue in a store.

clips       what may be heard beside the voices
scene       whether, where and how loud it is heard in a dialogue
loudness    as BS.1770 measures it
mixer       the sum
mix_stage   all that for one dialogue
timeline    turns that overlap, on two tracks
pack        mixed dialogues as a store
"""
