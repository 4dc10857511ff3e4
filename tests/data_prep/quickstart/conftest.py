"""The synthesiser, or a skip where it is not installed."""

from collections.abc import Iterator

import pytest

from data_prep.quickstart.espeak import Espeak, EspeakError


@pytest.fixture(scope="session")
def espeak() -> Iterator[Espeak]:
    """One worker for all tests that speak."""
    try:
        engine = Espeak()
    except EspeakError as error:
        pytest.skip(f"needs espeak-ng: {error}")
    with engine:
        yield engine
