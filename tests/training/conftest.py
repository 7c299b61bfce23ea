from pathlib import Path

import pytest
import torch

from tests.synthetic import write_data
from tests.training.nets import small
from training.models import MODELS

torch.set_num_threads(1)  # small tensors on a shared machine


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both splits of the tiny data set; not to be changed."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes of tests may name the small network."""
    monkeypatch.setitem(MODELS, "small", small)
