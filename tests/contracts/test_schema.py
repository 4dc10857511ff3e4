"""The schema and the YAML of `conf/` say the same."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from omegaconf import OmegaConf

from omnichat.config import known_keys
from omnichat.recipes import CONF_DIR, compose
from omnichat.schema import RunConfig, Section

OPEN = {"data.val", "data.test", "data.sources", "model.encoders.own"}  # their keys are the user's
OPTIONS = sorted(f"{path.parent.name}={path.stem}" for path in CONF_DIR.glob("*/*.yaml"))


def keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys of a composed config, sections included."""
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping) and f"{prefix}{name}" not in OPEN:
            yield from keys(value, f"{prefix}{name}.")


def sections(section: type[Section]) -> Iterator[type[Section]]:
    """The section and all below it."""
    yield section
    for field in section.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from sections(field.annotation)


@pytest.mark.parametrize("option", OPTIONS)
def test_yaml_has_exactly_the_keys_of_the_schema(option: str) -> None:
    """A key in the schema only is absent from --help; one in the YAML only is refused."""
    assert set(keys(OmegaConf.to_container(compose(option), resolve=True))) == set(known_keys())


def test_no_default_lives_in_the_schema() -> None:
    """A default in the schema would hide from the YAML, and from the run folder's config."""
    assert [s for s in sections(RunConfig) if not all(field.is_required() for field in s.model_fields.values())] == []


def test_every_group_is_a_section() -> None:
    """A folder of conf/ that no section reads would be dead."""
    groups = {path.name for path in CONF_DIR.iterdir() if path.is_dir()}
    assert groups == {
        name for name, field in RunConfig.model_fields.items() if field.annotation in set(sections(RunConfig))
    }


@pytest.mark.parametrize(
    "path", sorted(CONF_DIR.rglob("*.yaml")), ids=lambda path: path.relative_to(CONF_DIR).as_posix()
)
def test_every_default_is_explained(path: Any) -> None:
    """Every YAML opens with what it is for."""
    assert path.read_text(encoding="utf-8").startswith("# ")
