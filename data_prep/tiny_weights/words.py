"""The words the experts hear and the LLM reads: those of the quickstart corpus, and others."""

import re

from data_prep.synthesis.writing.quickstart_grammar import (
    CONTENT_WORDS,
    FOLLOW_UPS,
    OPENINGS,
    REPLIES,
    SOUND_SENTENCE,
    TEMPLATES,
)

# Places that no script of the corpus speaks of: they take the place of its content words in what is trained on.
NOUNS = (
    "bank", "barn", "cafe", "camp", "cathedral", "cellar", "church", "cinema", "clinic", "college", "court", "desert",
    "dock", "farm", "field", "fountain", "gallery", "garage", "gate", "hall", "hill", "house", "lake", "laundry",
    "lodge", "mall", "meadow", "mill", "monument", "opera", "palace", "park", "pharmacy", "playground", "pool",
    "prison", "pub", "quarry", "ranch", "restaurant", "road", "shop", "square", "street", "studio", "supermarket",
    "temple", "tower", "town", "tunnel", "university", "valley", "warehouse", "waterfall", "workshop", "zoo",
)  # fmt: skip
# Common words, so that an expert hears more of English's phones than one small corpus has.
COMMON_WORDS = tuple(
    """
    about after again always apple baby bad because become before begin behind big bird black blue boat body book
    bottle box bread bring build busy buy camera car careful catch chair change cheap child choose clean clock close
    cloud coat coffee cold color come cook cool cousin dance dark daughter deep different dinner doctor dog door
    dream drink drive early eat eight empty enough evening every eye face family far fast father feel few fight find
    finger finish fire first fish five floor flower fly follow food foot four fresh friend fruit full game girl give
    glass good great green grow hair half hand happy hard hat head heart heavy help high history hold horse hot hour
    hungry husband ice idea inside job juice jump keep key kind know language large last late laugh learn letter
    light like listen little long look loud love low lunch machine make man many maybe milk money month moon morning
    mother mouth move much music name narrow never new next nice night nine noise nothing number ocean often old
    once open orange order outside page paint paper party people picture piece plane plant play please price problem
    pull push question quick quiet rain read red rich right ring room round run safe salt same sand save say season
    second sell seven shape sheep ship shirt shoe short shout shut sick side silver simple sing sit six skin sky
    sleep slow small smile snow soft some son song soon soup spoon spring star stay stone stop storm story strange
    strong student sugar summer sun sweet swim table take talk tall tea teach team ten thank thick thin think
    thousand three ticket tired today together tomorrow tooth top touch train travel tree true try turn twelve ugly
    uncle under understand usual very visit voice wait wake wall warm wash watch water weak wear weather week wet
    wheel white wide wife wild wind window winter wish woman wonder wood word work world worry write wrong year
    yellow yesterday young
    """.split()
)


def _words(*texts: str) -> list[str]:
    return [word for text in texts for word in re.findall(r"[a-z']+", text.lower())]


CORPUS_WORDS = tuple(
    sorted({*_words(*TEMPLATES, *(text for pair in OPENINGS + FOLLOW_UPS for text in pair)), *CONTENT_WORDS})
)
REPLY_WORDS = tuple(sorted(set(_words(*(reply[3] for reply in REPLIES.values()), SOUND_SENTENCE))))
VOCABULARY = tuple(sorted({*CORPUS_WORDS, *NOUNS, *COMMON_WORDS}))
