"""The chain of stages, from briefs to the store. Between the stages lie pure functions of what the ledger holds, so
that the chain can be walked again at any time: what is made is found, what is missing is made.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

from data_prep.synthesis.backends.speech import make_speech
from data_prep.synthesis.config import Config
from data_prep.synthesis.contracts import Brief, Mixed, Plan, Script, Speech, ToMix, Utterance
from data_prep.synthesis.conversation import Choice, choose, utterances
from data_prep.synthesis.decisions import read_decisions
from data_prep.synthesis.executors import Executor, Inline, Job, Local, cores
from data_prep.synthesis.folder import RunFolder
from data_prep.synthesis.leases import Lease
from data_prep.synthesis.ledger import Item, Ledger
from data_prep.synthesis.mixing.mix_stage import MixStage
from data_prep.synthesis.mixing.pack import order
from data_prep.synthesis.runner import Tally, run_stage
from data_prep.synthesis.seeds import Namer
from data_prep.synthesis.speak_stage import SpeakStage
from data_prep.synthesis.stage import Stage
from data_prep.synthesis.writing.briefs import briefs
from data_prep.synthesis.writing.deduplicate import duplicates
from data_prep.synthesis.writing.plans import plans, voice_pools
from data_prep.synthesis.writing.script_stage import ScriptStage

STAGES = ("scripts", "deduplicate", "speak", "conversation", "mix")
WORKED = ("scripts", "speak", "mix")  # by workers; the others are pure
Progress = Callable[[str, dict[str, int]], None]


@dataclass
class Pipeline:
    """A run as it is walked by one driver.

    Attributes:
        folder, config: of the run.
        ledger: of the folder.
        lease: of this driver.
        limit: only the first so many scripts, for `estimate` and `pilot`.
        progress: told the stage and its counts now and then.
        tallies: what this driver did, by stage.
    """

    folder: RunFolder
    config: Config
    ledger: Ledger
    lease: Lease
    limit: int | None = None
    progress: Progress = lambda stage, counts: None
    tallies: dict[str, Tally] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.config
        self.decisions = read_decisions(self.ledger)
        speak = SpeakStage(config.speech, config.gates)
        # Another take of an engine that knows no chance would be the same recording again.
        takes = 1 if speak.speech.deterministic else config.conversation.max_takes
        self.hearing = config.conversation.model_copy(update={"max_takes": takes})
        self.stages: dict[str, Stage[Any, Any]] = {
            "scripts": ScriptStage(config.writing, config.chat),
            "speak": speak,
            "mix": MixStage(config.mix),
        }

    def walk(self) -> None:
        """All stages up to mixed dialogues.

        Raises:
            DiskFull, StageFailed: see `run_stage`.
            DataError, ValueError: see `briefs` and `plans`.
        """
        self.want_scripts()
        self.work("scripts")
        self.deduplicate()
        self.speak()
        self.ledger.want("mix", self._mixes())
        self.work("mix")

    def work(self, stage: str) -> None:
        """Have all items of a stage made, by this and any other driver."""
        execution = self.config.execution
        job = Job(self.stages[stage], self.config.seed, self.folder.blobs, execution.workers or cores())
        counts = lambda found: self.progress(stage, found)  # noqa: E731
        tally = run_stage(self.ledger, self.lease, job, self._executor, counts)
        self.tallies[stage] = self.tallies.get(stage, Tally()).plus(tally)

    def want_scripts(self) -> int:
        """Name the scripts to write; how many."""
        name = self._namer("scripts")

        def items() -> Iterator[Item]:
            for brief in self.briefs:
                take = self.decisions.take("words", str(brief.number))
                yield Item(name(brief, take), brief.number, brief.model_dump_json())

        return self.ledger.want("scripts", items())

    @cached_property
    def briefs(self) -> list[Brief]:
        """What this run, or shard, is to write."""
        config = self.config
        found = briefs(config.writing, config.scripts, config.seed, config.splits)
        return [brief for brief in found if config.has(brief.number)][: self.limit]

    def scripts(self) -> Iterator[Script]:
        """All valid scripts, by number."""
        for found in self.ledger.results("scripts"):
            if found.output is not None:
                yield Script.model_validate_json(found.output)

    def deduplicate(self) -> None:
        """Drop scripts that say what a valid one of a lower number says."""
        scripts = {script.brief.number: script for script in self.scripts()}
        dropped = duplicates(scripts)
        self.ledger.settle(
            "deduplicate",
            ((Item(f"deduplicate-{number}", number, "{}"), *_why(number, dropped)) for number in sorted(scripts)),
        )

    def plans(self) -> Iterator[Plan]:
        """All dialogues of scripts that were kept, in the order of the store."""
        backend = make_speech(self.config.speech)
        pools = voice_pools(list(self.config.splits), backend.voices, backend.unseen_voices)
        kept = {found.number for found in self.ledger.results("deduplicate") if not found.reason}
        for script in self.scripts():
            if script.brief.number in kept:
                yield from plans(script, pools[script.brief.split], self.config.seed)

    def speak(self) -> None:
        """Have all turns spoken, and those of conversations with too many word errors again."""
        name, missing = self._namer("speak"), 1

        def items() -> Iterator[Item]:
            nonlocal missing
            for plan, choice in self.choices():
                missing += choice.missing
                for utterance, take in choice.asked:
                    yield Item(name(utterance, take), plan.brief.number, utterance.model_dump_json())

        while missing:
            missing = 0
            self.ledger.want("speak", items())
            if missing:
                self.work("speak")
        self.ledger.settle(
            "conversation",
            (
                (Item(f"conversation-{plan.id}", plan.brief.number, "{}"), choice.reason, choice.message)
                for plan, choice in self.choices()
            ),
        )

    def choices(self) -> Iterator[tuple[Plan, Choice]]:
        """Each dialogue with the recordings that it takes, of those that there are."""
        recordings = self._recordings()
        for plan in self.plans():
            spoken = utterances(plan, self.config.speak_assistant)
            first = self.decisions.take("speech", plan.id)
            yield plan, choose(plan, spoken, recordings, self.hearing, first)

    def mixed(self) -> Iterator[Mixed]:
        """All finished dialogues, in the order of the store."""
        for _, batch in _by_number(self.ledger.results("mix")):
            found = [Mixed.model_validate_json(one.output) for one in batch if one.output is not None]
            yield from sorted(found, key=order)

    def contents(self) -> str:
        """A hash of all that `store/` is made from."""
        digest = hashlib.sha256(f"{self.config.name}\n{self.config.licence}\n".encode())
        for found in self.ledger.results("mix"):
            if found.output is not None:
                digest.update(found.id.encode())
        return digest.hexdigest()

    def _recordings(self) -> Callable[[Utterance, int], Speech | None]:
        """What there is in the ledger, read once; what is pending raises KeyError."""
        name = self._namer("speak")
        rows = self.ledger.query(
            "SELECT id, output FROM items WHERE stage = 'speak' AND status IN ('done', 'rejected')"
        )
        outputs: dict[str, str | None] = dict(rows)

        def find(utterance: Utterance, take: int) -> Speech | None:
            output = outputs[name(utterance, take)]
            return None if output is None else Speech.model_validate_json(output)

        return find

    def _mixes(self) -> Iterator[Item]:
        name = self._namer("mix")
        for plan, choice in self.choices():
            if not choice.reason:
                mix = ToMix(plan=plan, speech=tuple(choice.speech))
                take = self.decisions.take("sound", plan.id)
                yield Item(name(mix, take), plan.brief.number, mix.model_dump_json())

    def _namer(self, stage: str) -> Namer:
        return Namer(self.stages[stage], self.config.seed)

    def _executor(self, job: Job) -> Executor:
        execution = self.config.execution
        if execution.executor == "ray":
            from data_prep.synthesis.ray_executor import OnRay

            return OnRay(job, execution.ray_address)
        return Inline(job) if execution.executor == "inline" else Local(job)


def _why(number: int, dropped: dict[int, int]) -> tuple[str, str]:
    if number not in dropped:
        return "", ""
    return "duplicate", f"script {number} says nearly what script {dropped[number]} says"


def _by_number(results: Iterable[Any]) -> Iterator[tuple[int, list[Any]]]:
    for number, group in groupby(results, key=lambda found: found.number):
        yield number, list(group)
