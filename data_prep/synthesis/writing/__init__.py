"""From settings to words: briefs, scripts by a grammar or a language model, their checks, and plans for dialogues.

`settings` what is asked for; `briefs` a brief per script; `script_stage` brief to script (by `template` or by `llm`,
checked by `validate`); `deduplicate` scripts that say nearly the same; `plans` script to dialogues with voices.
"""
