from pathlib import Path

import pytest

from tests.synthetic import write_data, write_tiny


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both splits of the tiny data set; not to be changed."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """An uncalibrated bundle for it."""
    return write_tiny(tmp_path / "tiny")
