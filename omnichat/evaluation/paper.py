"""Values of the paper's tables, to stand beside a run that repeats one of its rows.

OmniChat (ICLR 2025), Tables 2-4; all x 100. Columns: BLEU-4, ROUGE-L, METEOR, BERTScore, weighted emotion F1.
"""

from dataclasses import dataclass

from omnichat.config import RunConfig

COLUMNS = ("bleu", "rouge_l", "meteor", "bertscore", "emotion_f1_weighted")
Row = tuple[float | None, float | None, float | None, float | None, float | None]

DAILYTALK: dict[str, Row] = {
    "OmniChat": (3.54, 12.63, 12.57, 86.24, 71.87),
    "OmniChat + Real": (4.95, 12.95, 14.24, 86.99, 75.46),
    "Qwen2-Audio": (3.03, 12.81, 13.89, 86.14, None),
    "SALMONN": (2.32, 11.78, 11.56, 85.47, None),
    "StyleTalk": (2.01, 9.42, 10.95, 82.82, 49.63),
    "FunAudioLLM": (2.65, 12.53, 11.82, 84.76, 61.02),
}
SHARECHATX: dict[str, Row] = {
    "emotion": (6.2, 20.0, 18.9, 88.1, 57.2),
    "audio": (6.0, 18.7, 17.4, 87.3, 51.5),
    "music": (4.7, 17.7, 15.8, 87.8, 69.1),
}
# By alpha as this repository and the paper's Appendix C.1 define it: the share of synthetic dialogues. The table's own
# end rows are the other way round: its row 0.0 repeats Table 2's synthetic-only model.
ALPHA: dict[float, Row] = {
    1.0: (3.54, 12.63, 12.57, 86.24, 71.87),
    0.1: (5.07, 13.29, 14.17, 85.70, 71.05),
    0.2: (4.95, 12.95, 14.24, 86.99, 75.46),
    0.3: (3.94, None, None, None, 74.71),
    0.4: (3.88, None, None, None, None),
    0.5: (3.73, None, None, None, None),
    0.0: (3.90, 12.32, 13.22, 86.02, 70.66),
}
END_ROWS = "The end rows of Table 4 contradict Appendix C.1; they are read here as the formula there says."


@dataclass(frozen=True, slots=True)
class PaperTable:
    """Rows of the paper that a run is to be read beside."""

    title: str
    rows: dict[str, Row]
    note: str = ""


def repeats_table_4(config: RunConfig) -> bool:
    """Whether the run is of the kind of Table 4: DailyTalk mixed with synthetic dialogues at some alpha."""
    return config.data.alpha is not None and config.data.real is not None and "dailytalk" in config.data.real


def paper_table(config: RunConfig) -> PaperTable | None:
    """The table that the run's data repeats; None where it is none of the paper's experiments."""
    data = config.data
    if data.real is not None and "dailytalk" in data.real:
        rows = dict(DAILYTALK)
        if data.alpha in ALPHA:
            rows[f"OmniChat, alpha {data.alpha:g} (Table 4)"] = ALPHA[data.alpha]
        return PaperTable("Tables 2 and 4, DailyTalk", rows, END_ROWS if data.alpha in (0, 1) else "")
    if data.real is None and data.synthetic is not None and data.alpha == 1:
        for subset, row in SHARECHATX.items():
            if f"sharechat_{subset}" in data.synthetic:
                return PaperTable(f"Table 3, ShareChat-{subset.title()}", {"OmniChat": row})
    return None
