"""From topics to mixed spoken dialogues: `python -m data_prep.synthesis --help`.

    briefs -> scripts -> deduplicate -> branch -> voices -> speak and verify -> mix -> pack -> report

Stages marked by a verb that costs something (scripts, speak, mix) work item by item through `stage.Stage` and are
remembered in a ledger; what lies between them is a pure function of their results.
"""
