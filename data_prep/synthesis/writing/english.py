"""Words by which English is told from other languages: the most frequent ones that carry no topic."""

# Function words of English, by any frequency list, and numbers, which people read out; words that are as frequent
# elsewhere (die, war, man) are left out.
COMMON = frozenset(
    """
    a about after again all always am and any are around as at away back be because been before being but by can can't
    could did didn't do does doesn't don't down each even ever every feel few first for from get give go going good got
    had has have he her here him his how i i'd i'll i'm i've if in into is isn't it it's its just keep know last let
    let's like little long look made make many maybe me mean might more most much must my need never new next no nobody
    not nothing now of off oh okay on once one only or other our out over people please really right said same say see
    she should since so some someone something soon sorry still such sure take talk tell than thank thanks that that's
    the their them then there there's these they they're thing things think this those time to today together too told
    under until up us very want was way we we'll we're well were what what's when where which while who why will with
    without won't would yes yet you you'll you're you've your
    two three four five six seven eight nine ten twenty thirty hundred
    """.split()
)
# Of the words of a script. English speech has 0.5 and more; German, French, Spanish and Italian below 0.1.
LEAST_SHARE = 0.25
