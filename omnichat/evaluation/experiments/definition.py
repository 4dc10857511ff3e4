"""What an experiment is: `eval/experiments/NAME.yaml`."""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from omnichat.evaluation.arguments import UsageError
from omnichat.evaluation.baselines.settings import Kind
from omnichat.evaluation.measure import TITLES
from omnichat.recipes import ROOT, did_you_mean
from omnichat.schema import Section

FOLDER = ROOT / "eval" / "experiments"
Text = Annotated[str, Field(min_length=1)]
Strings = Annotated[tuple[Text, ...], Field(strict=False)]  # YAML gives lists


class DefinitionError(UsageError):
    """An experiment's file that makes no sense; the message names the file and every fault."""


class Size(Section):
    """How large the experiment is run.

    Attributes:
        recipe: of all its runs.
        set: overrides of all its runs.
    """

    recipe: Text
    set: Strings = ()


class Row(Section):
    """A run for each seed, or a baseline, which is answered once.

    Attributes:
        set: overrides, at every size.
        at: further overrides by size.
        init_from: the row whose trained weights it begins with.
        baseline: nothing is trained, eval/baseline.py answers the sets.
        options: of the baseline, as that program takes them.
        only: sizes that have the row; empty: all.
        line, x: curve and place on it, where the experiment is plotted.
        paper: the paper's values by metric, x 100.
    """

    set: Strings = ()
    at: dict[str, Strings] = Field(default_factory=dict)
    init_from: Text | None = None
    baseline: Kind | None = None
    options: Strings = ()
    only: Strings = ()
    line: str = ""
    x: float | None = Field(default=None, strict=False)
    paper: dict[str, float] = Field(default_factory=dict)


class Claim(Section):
    """A sentence of the paper as an inequality: the sum of rows' values times their weights is above 0.

    Attributes:
        text: what is claimed.
        metric: that it is about.
        split: the set that is scored.
        weights: of the rows.
    """

    text: Text
    metric: Text
    split: Text
    weights: dict[str, Annotated[float, Field(strict=False)]]


class Experiment(Section):
    """A table or figure.

    Attributes:
        title: what it is.
        source: where the paper has it.
        metrics: columns, keys of scores.json.
        splits: sets that are scored.
        sizes: how it is run, by name.
        rows: by name, in the order of the table; one that begins with another's weights comes after it.
        claims: to be decided.
        deviations: in what the rows differ from the paper's, at any size.
        axis: what `x` of the rows is.
        caveats: further deviations by size.
    """

    title: Text
    source: Text
    metrics: Strings
    splits: Strings
    sizes: dict[str, Size]
    rows: dict[str, Row]
    claims: Annotated[tuple[Claim, ...], Field(strict=False)] = ()
    deviations: Strings = ()
    caveats: dict[str, Strings] = Field(default_factory=dict)
    axis: str = ""

    def rows_of(self, size: str) -> dict[str, Row]:
        """The rows that are run at a size."""
        return {name: row for name, row in self.rows.items() if not row.only or size in row.only}


def names(folder: Path = FOLDER) -> list[str]:
    """Of all experiments."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load(name: str, folder: Path = FOLDER) -> Experiment:
    """The experiment of that name.

    Raises:
        DefinitionError: there is none, or its file is wrong; all faults at once.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise DefinitionError(f"no experiment {name!r}{did_you_mean(name, names(folder))}; there are: {_all(folder)}")
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        experiment = Experiment.model_validate(values)
    except yaml.YAMLError as error:
        raise DefinitionError(f"{path}: {error}") from None
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise DefinitionError("\n".join([f"{path}:", *lines])) from None
    if faults := _faults(experiment):
        raise DefinitionError("\n".join([f"{path}:", *(f"  {fault}" for fault in faults)]))
    return experiment


def _all(folder: Path) -> str:
    return ", ".join(names(folder)) or "none"


def _faults(experiment: Experiment) -> list[str]:
    """What the parts allow each by itself, and together do not."""
    faults, seen = [], set[str]()
    for name, row in experiment.rows.items():
        if row.init_from is not None and row.init_from not in seen:
            faults.append(f"rows.{name}.init_from: {row.init_from!r} is no earlier row")
        elif row.init_from is not None and (row.baseline or experiment.rows[row.init_from].baseline):
            faults.append(f"rows.{name}.init_from: a baseline has no trained weights")
        if row.options and row.baseline is None:
            faults.append(f"rows.{name}.options: belong to a baseline, and this row is none")
        for key in (*row.at, *row.only):
            if key not in experiment.sizes:
                faults.append(f"rows.{name}: {key!r} is no size; there are {', '.join(experiment.sizes)}")
        faults += [f"rows.{name}.paper: {key!r} is no metric" for key in row.paper if key not in TITLES]
        seen.add(name)
    faults += [f"metrics: {key!r} is none" for key in experiment.metrics if key not in TITLES]
    faults += [f"caveats: {key!r} is no size" for key in experiment.caveats if key not in experiment.sizes]
    for claim in experiment.claims:
        faults += [f"claims: {claim.text!r}: no row {name!r}" for name in claim.weights if name not in experiment.rows]
        if claim.metric not in TITLES:
            faults.append(f"claims: {claim.text!r}: {claim.metric!r} is no metric")
        if abs(sum(claim.weights.values())) > 1e-9:
            faults.append(f"claims: {claim.text!r}: the weights do not sum to 0, so it compares nothing")
    return faults
