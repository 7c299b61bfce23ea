"""Data sets that a recipe may name: their files, checksums and classes, and where they are fetched from.

A download is refused unless its checksum is the publisher's. Files of the user's own are taken as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.data.checks import checked_inputs, checked_labels
from calibration.data.cifar import read_cifar
from calibration.data.download import cache_dir, fetch, fetch_members
from calibration.data.examples import Examples
from calibration.data.idx import find_idx, read_idx
from common.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class IdxSet:
    """Four files of the MNIST family, each of which may be gzipped."""

    classes: tuple[str, ...]
    url: str
    train: Mapping[str, str]  # images, then labels: file -> sha256 of its unpacked content
    test: Mapping[str, str]

    def find(self, folder: Path, name: str) -> Path | None:
        """The file in a folder, or None."""
        return find_idx(folder, name)

    def download(self, url: str, folder: Path, files: Iterable[str]) -> None:
        """Fetch what a folder lacks of these files."""
        sha256 = {**self.train, **self.test}
        for name in files:
            if find_idx(folder, name) is None:
                fetch(f"{url}/{name}.gz", folder / f"{name}.gz", sha256[name])

    def read(self, paths: Sequence[Path]) -> Examples:
        """Images and labels of the files of one split."""
        images_NHW, images_sha256 = read_idx(paths[0], axes=3)
        labels_N, labels_sha256 = read_idx(paths[1], axes=1)
        if len(images_NHW) != len(labels_N):
            raise ConfigError(f"{paths[0]} has {len(images_NHW)} images but {paths[1]} has {len(labels_N)} labels.")
        labels_N, _ = checked_labels(labels_N, self.classes, f"{paths[1]}: the labels")
        return Examples(
            inputs=checked_inputs({"image": images_NHW[:, None]}, str(paths[0])),
            labels_N=labels_N,
            sha256=dict(zip((_stem(path) for path in paths), (images_sha256, labels_sha256), strict=True)),
            classes=self.classes,
        )


@dataclass(frozen=True, kw_only=True)
class CifarSet:
    """Binary files of CIFAR, published as one archive."""

    classes: tuple[str, ...]
    url: str
    archive: str
    sha256: str  # of the archive
    folder: str  # in it
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int = 1

    def find(self, folder: Path, name: str) -> Path | None:
        """The file in a folder, or in the archive's own folder there, or None."""
        return next((path for path in (folder / name, folder / self.folder / name) if path.is_file()), None)

    def download(self, url: str, folder: Path, files: Iterable[str]) -> None:
        """Fetch the archive where one of these files is missing, and unpack both splits."""
        if any(self.find(folder, name) is None for name in files):
            fetch_members(f"{url}/{self.archive}", folder, (*self.train, *self.test), self.sha256)

    def read(self, paths: Sequence[Path]) -> Examples:
        """Images and labels of the files of one split."""
        images_NCHW, labels_N, sha256 = read_cifar(paths, self.classes, label_bytes=self.label_bytes)
        return Examples(
            inputs={"image": images_NCHW},
            labels_N=labels_N,
            sha256=dict(zip((path.name for path in paths), sha256, strict=True)),
            classes=self.classes,
        )


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz")


def read_known(name: str, split: str, data_dir: Path | None, url: str | None = None) -> Examples:
    """A split of a known data set.

    Args:
        name: one of `DATASETS`.
        split: "train" or "test"; no file of the other one is opened.
        data_dir: the folder of the files, or one that has them in a subfolder named like the data set; None fetches
            them once, checked, into the cache.
        url: where to fetch them from, instead of the publisher.

    Raises:
        ConfigError: when files are missing, damaged or do not belong together.
    """
    known = DATASETS[name]
    files = known.train if split == "train" else known.test
    folders = [data_dir, data_dir / name] if data_dir is not None else [cache_dir() / name]
    if data_dir is None:
        known.download((url or known.url).rstrip("/"), folders[0], files)
    paths = []
    for file in files:
        found = next((path for folder in folders if (path := known.find(folder, file)) is not None), None)
        if found is None:
            gz = f" or {file}.gz" if isinstance(known, IdxSet) else ""
            raise ConfigError(
                f"{file}{gz} is neither in {folders[0]} nor in {folders[-1]}. "
                "--data-dir names the folder that holds the data set's files."
            )
        paths.append(found)
    examples = known.read(paths)
    if not len(examples):
        raise ConfigError(f"{paths[0]} holds no images.")
    return examples


_CIFAR_100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""

DATASETS: dict[str, IdxSet | CifarSet] = {
    "mnist": IdxSet(
        classes=tuple("0123456789"),
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        train={
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        },
        test={
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion-mnist": IdxSet(
        classes=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        train={
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        },
        test={
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
    ),
    "cifar-10": CifarSet(
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        url="https://www.cs.toronto.edu/~kriz/",
        archive="cifar-10-binary.tar.gz",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        folder="cifar-10-batches-bin",
        train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test=("test_batch.bin",),
    ),
    "cifar-100": CifarSet(
        classes=tuple(_CIFAR_100.split()),
        url="https://www.cs.toronto.edu/~kriz/",
        archive="cifar-100-binary.tar.gz",
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        folder="cifar-100-binary",
        train=("train.bin",),
        test=("test.bin",),
        label_bytes=2,
    ),
}
