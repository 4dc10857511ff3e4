"""Recipes, and the command line as Hydra overrides.

Each file of the top-level `recipes/` folder is selectable as `recipe=NAME`; its first line is its title.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).resolve().parents[1]
CONF_DIR = ROOT / "conf"
RECIPES_DIR = ROOT / "recipes"


# Sections whose keys are the user's own.
USERS_OWN = ("data.first", "data.sources", "data.test", "data.val", "model.encoders.own")


def register_recipes(folder: Path = RECIPES_DIR) -> dict[str, str]:
    """Store `folder/NAME.yaml` as option NAME of the config group `recipe`; returns each name with its title.

    Hydra names a group after its directory, and ours is called `recipes`, so the files go through the
    ConfigStore. Package `_global_` lets a recipe set any key, as if it stood in `conf/train.yaml`.
    A recipe that sets no `run_name` runs under its own name.
    """
    titles = {}
    for path in sorted(folder.rglob("*.yaml")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        group, _, option = f"recipe/{name}".rpartition("/")
        node = OmegaConf.merge({"run_name": name.replace("/", "_")}, OmegaConf.load(path))
        ConfigStore.instance().store(option, node, group, package="_global_", provider=str(path))
        titles[name] = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
    width = max(map(len, titles), default=0)
    listing = "\n".join(f"  {name:<{width}}  {title}" for name, title in titles.items())
    OmegaConf.register_new_resolver("omnichat.recipes", lambda: listing, replace=True)
    OmegaConf.register_new_resolver("omnichat.root", lambda: str(ROOT), replace=True)
    return titles


def compose(*overrides: str, with_hydra: bool = False) -> DictConfig:
    """The config of `python train.py OVERRIDES`, composed but not yet checked (see `omnichat.config.validate`).

    Raises:
        HydraException: the overrides do not compose.
    """
    register_recipes()
    with _running_set_aside(), initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return hydra_compose("train", list(overrides), return_hydra_config=with_hydra)


@contextmanager
def _running_set_aside() -> Iterator[None]:
    """Within `train.py` a Hydra is at work, which bears no second one: an older run's new keys are looked up there."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running


def locate(path: str) -> Path:
    """A path of a config: taken from the current folder, or from the repository where it is not there."""
    here = Path(path).expanduser()
    try:
        return here if here.is_absolute() or here.exists() else ROOT / here
    except OSError:  # may not be looked at, or is no name: for whoever reads it to say
        return here


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known dotted name most like `name`; it may stand in another section (`alpha` -> `data.alpha`)."""
    best, best_score = None, 0.0
    for candidate in known:
        last = SequenceMatcher(None, name.rpartition(".")[2], candidate.rpartition(".")[2]).ratio()
        whole = SequenceMatcher(None, name, candidate).ratio()
        if last > 0.6 and last + whole / 2 > best_score:  # the key itself counts more than where it stands
            best, best_score = candidate, last + whole / 2
    return best


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'alpha'?`, or nothing where no known name is close."""
    close = nearest(name, known)
    return f"; did you mean {close!r}?" if close else ""


def config_groups() -> dict[str, list[str]]:
    """The options of each group of `conf/`, and the recipes."""
    folders = [folder for folder in sorted(CONF_DIR.iterdir()) if folder.is_dir()]
    options = {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}
    return options | {"recipe": sorted(register_recipes())}


def read_overrides(arguments: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Parse `key=value` arguments; flags (`-m`) are passed over.

    Returns:
        The values of each override as overrides of their own (several for a sweep), and the faults: what is
        not an override at all, and options that a config group does not have.
    """
    groups = config_groups()
    alternatives, faults = [], []
    for argument in arguments:
        if argument.startswith("-"):
            continue
        try:
            override = OverridesParser.create().parse_override(argument)
        except HydraException:
            typed = argument.removeprefix("++")
            cure = "quote a value with spaces or special characters twice"
            faults.append(f"{typed}: is not of the form key=value; {cure}")
            continue
        key = override.get_key_element()
        values = _values(override, groups)
        wrong = _unknown_options(override.key_or_group, values, groups)
        faults += wrong
        if not wrong:
            alternatives.append([f"{key}={value}" for value in values] if override.is_sweep_override() else [argument])
    return alternatives, faults


def _values(override: Override, groups: Mapping[str, Sequence[str]]) -> list[str]:
    value = override.value()
    if isinstance(value, Glob):
        return list(value.filter(list(groups.get(override.key_or_group, []))))
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    return [] if override.is_sweep_override() or override.is_delete() else [override.get_value_element_as_str()]


def _unknown_options(key: str, values: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[str]:
    options = groups.get(key)
    if options is None:
        return []
    return [
        f"{key}={value}: no such {key}{did_you_mean(value, options)}; there are: {', '.join(options)}"
        for value in values
        if value not in options
    ]


def with_own_keys(overrides: Iterable[str]) -> list[str]:
    """The overrides, with Hydra told of keys that may be new because they are the user's own.

    `data.val={}`, a whole section of such keys, stands in place of what the recipe has there; Hydra by itself would
    merge both, so that nothing could be taken away.
    """
    found = []
    for override in overrides:
        section, _, value = override.partition("=")
        if section in USERS_OWN and value.startswith("{") and _is_one_value(override):
            found += [f"~{section}", f"++{override}"]
        elif section.startswith(tuple(f"{name}." for name in USERS_OWN)):
            found.append(f"++{override}")
        else:
            found.append(override)
    return found


def _is_one_value(override: str) -> bool:
    try:
        return not OverridesParser.create().parse_override(override).is_sweep_override()
    except HydraException:
        return False  # to be named as it was typed


def force(override: str) -> str:
    """The override with Hydra's prefix `++`: a key that is not there is added, for the schema to name."""
    key = override.partition("=")[0]
    return override if key.startswith(("+", "~")) or "/" in key or key in config_groups() else f"++{override}"
