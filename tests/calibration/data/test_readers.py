"""Files of the user's own, read through the data section of a recipe."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calibration.data.source import Source
from calibration.datasets import Data, open_data
from calibration.settings import DataSettings
from common.errors import ConfigError

X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
Y = np.arange(60) % 3


def source(folder: Path, dataset: str, **keys: Any) -> Source:
    return Source(DataSettings(dataset=dataset, **keys), None, folder)


def refused(folder: Path, dataset: str, said: str, **keys: Any) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        _ = source(folder, dataset, **keys).train
    assert "\n" not in str(caught.value)


def test_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    np.savez_compressed(tmp_path / "t.npz", x=X[:5] + 1, y=Y[:5])
    alone = source(tmp_path, "./d.npz")
    assert alone.draws and np.array_equal(alone.train.inputs["x"], X) and set(alone.train.sha256) == {"d.npz"}
    both = source(tmp_path, "./d.npz", test="./t.npz")
    assert both.test is not None and len(both.test) == 5 and set(both.test.sha256) == {"t.npz"}


def test_npz_that_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", x=np.array([[1], [1, 2]], dtype=object), y=Y[:2])
    np.save(tmp_path / "one.npy", X)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    (tmp_path / "text.npz").write_text("text")
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    raw = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(raw[: len(raw) // 2])
    (tmp_path / "spoilt.npz").write_bytes(raw[:200] + b"\xff" * 8 + raw[208:])
    refused(
        tmp_path, "./objects.npz", r"objects\.npz: x is an array of Python objects, which would have to be unpickled"
    )
    refused(tmp_path, "./one.npz", r"one\.npz holds one array")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999, 4), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "vast.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00\x76\x00" + header)
    for name in ("text", "cut", "spoilt", "vast"):
        refused(tmp_path, f"./{name}.npz", rf"{name}\.npz is no numpy archive \(\.npz\), or it is damaged")
    refused(tmp_path, "./absent.npz", r"data: there is no .*absent\.npz")
    (tmp_path / "t.csv").write_text("x")
    refused(tmp_path, "./d.npz", r"data\.test is '\./t\.csv'\. It must be a file like d\.npz", test="./t.csv")


CSV = "a,b,label\n1,2.5,cat\n3,4,dog\n5,-6e1,cat\n"


@pytest.mark.parametrize(
    "text", [CSV, CSV.replace(",", ";"), CSV.replace(",", "\t"), "\ufeff" + CSV.replace("\n", "\r\n") + "\n"]
)
def test_csv(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.csv").write_bytes(text.encode())
    found = source(tmp_path, "./d.csv").train
    assert found.inputs["x"].tolist() == [[1, 2.5], [3, 4], [5, -60]] and found.inputs["x"].dtype == np.float32
    assert found.labels_N.tolist() == [0, 1, 0] and found.classes == ("cat", "dog")


def test_csv_with_everything(tmp_path: Path) -> None:
    lines = ["id,who,species,split,p0,p1,p2,p3"]
    lines += [f"{k},{'ab'[k % 2]},{k % 3},{'test' if k > 6 else 'train'},{k},0,1,255" for k in range(9)]
    (tmp_path / "d.csv").write_text("\n".join(lines))
    keys: dict[str, Any] = {"label": "species", "group": "who", "ignore": ["id"], "input": "pixels"}
    found = source(tmp_path, "./d.csv", shape=[1, 2, 2], dtype="uint8", **keys)
    assert found.test is not None and len(found.train) == 7 and not found.draws
    assert found.train.inputs["pixels"].shape == (7, 1, 2, 2) and found.train.inputs["pixels"].dtype == np.uint8
    assert found.train.groups_N is not None and found.train.groups_N.tolist() == list("abababa")


@pytest.mark.parametrize(
    ("text", "keys", "said"),
    [
        ("", {}, "holds no rows. It must have a line of column names"),
        ("a,label\n", {}, "holds no rows"),
        ("a,label\n1,0\n1,2,3\n", {}, r"line 3 has 3 values\. The first line names 2 columns"),
        ("a,label\n1,0\n1\n", {}, "line 3 has 1 values"),
        ("a,label\n1,0\nx,1\n", {}, r"line 3: column 'a' holds 'x'\. It must be a number"),
        ("a,label\n1,0\n,1\n", {}, "line 3: column 'a' holds nothing"),
        ("a,label\n1,0\nnan,1\n", {}, "line 3: column 'a' holds nan"),
        ("a,label\ninf,0\n", {}, "line 2: column 'a' holds inf"),
        ("a,label\n1,0.5\n1,dog\n2,\n", {}, "hold an empty label in row 2"),
        ("a,b\n1,0\n", {}, r"has no column called label, .* or class\. data\.label names .* there are a, b"),
        ("a,label\n1,0\n", {"label": "kind"}, r"data\.label names the column 'kind'\. .* has a, label"),
        ("a,label\n1,0\n", {"group": "who"}, r"data\.group names the column 'who'"),
        ("a,label\n1,0\n", {"ignore": "who"}, r"data\.ignore names the column 'who'"),
        ("a,label\n1,0\n", {"ignore": "a"}, "has no column beside a, label"),
        ("a,a,label\n1,0,1\n", {}, "names a column 'a' twice"),
        ("a,,label\n1,0,1\n", {}, "names a column '' with no name"),
        ("1,2,3\n1,0,1\n", {}, r"the first line holds numbers\. It must name the columns"),
        ("a,label\n1.5,0\n", {"dtype": "uint8"}, r"holds 1\.5, which is no uint8"),
        ("a,label\n256,0\n", {"dtype": "uint8"}, "holds 256, which is no uint8"),
        ("a,label\n1,0\n", {"shape": [2]}, r"data\.shape is \[2\]\. .* has 1 columns of features"),
        ("a,label\n1,0\n", {"input": ["p", "q"]}, r"data\.input has 2 names"),
        ("a,label\n1,0\n", {"size": [2, 2]}, r"data\.size has no effect on \./d\.csv"),
        ('a,label\n"1,0\n', {}, r"d\.csv, line 2: unexpected end of data"),
    ],
)
def test_csv_that_is_refused(tmp_path: Path, text: str, keys: dict[str, Any], said: str) -> None:
    (tmp_path / "d.csv").write_text(text)
    refused(tmp_path, "./d.csv", said, **keys)


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes("a,label\n1,über\n".encode("latin-1"))
    refused(tmp_path, "./d.csv", r"is not UTF-8 text: byte 10 is 0xfc")


def test_token_ids(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("good 5 6 7\n\nbad\t8\n")
    (tmp_path / "t.txt").write_text("bad 1 2 3 4 5\n")
    found = source(tmp_path, "./d.txt").train
    assert found.inputs["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]] and found.classes == ("bad", "good")
    assert found.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    both = source(tmp_path, "./d.txt", test="./t.txt", input=["tokens"])
    assert both.test is not None and both.train.inputs["tokens"].shape == (2, 5) and both.test.labels_N.tolist() == [0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no rows. Each line must hold a label, then token ids"),
        ("good\n", r"line 1 holds a label but no token ids"),
        ("good 1\nbad very bad\n", r"line 2 holds 'very', which is no token id\. .*\./FILE\.py:FUNCTION"),
        ("good -1\n", "line 1 holds '-1', which is no token id"),
    ],
)
def test_token_ids_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "d.txt").write_text(text)
    refused(tmp_path, "./d.txt", said)


def write_image(path: Path, size: tuple[int, int] = (4, 3), mode: str = "L", seed: int = 0) -> np.ndarray:
    """An image of random pixels; width and height."""
    channels = () if mode == "L" else (3,)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def test_a_folder_of_images(tmp_path: Path) -> None:
    ant = write_image(tmp_path / "ant" / "1.png")
    bees = [write_image(tmp_path / "bee" / "deep" / f"{k}.png", seed=k) for k in (3, 4)]
    (tmp_path / "ant" / ".DS_Store").write_text("x")
    found = source(tmp_path.parent, f"./{tmp_path.name}").train
    assert found.inputs["image"].dtype == np.uint8 and found.inputs["image"].shape == (3, 1, 3, 4)
    assert np.array_equal(found.inputs["image"][:, 0], [ant, *bees])
    assert found.labels_N.tolist() == [0, 1, 1] and found.classes == ("ant", "bee")


def test_train_and_test_folders_of_images(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "10" / "a.png")
    write_image(tmp_path / "train" / "9" / "a.jpg", mode="RGB", seed=1)
    write_image(tmp_path / "test" / "9" / "a.png", size=(8, 6), seed=2)
    found = source(tmp_path.parent, f"./{tmp_path.name}/", size=[6, 8], fit="contain")
    assert found.test is not None and found.test.labels_N.tolist() == [1] and found.test.classes == ("10", "9")
    assert found.train.inputs["image"].shape == (2, 3, 6, 8) and found.train.fit == "contain"
    assert set(found.train.sha256) == {"train"} and set(found.test.sha256) == {"test"}
    apart = source(tmp_path, "./train", test="./test", size=[6, 8], mode="L", input="photo")
    assert apart.test is not None and apart.test.inputs["photo"].shape == (1, 1, 6, 8)


def test_folders_that_are_refused(tmp_path: Path) -> None:
    def fresh(name: str) -> Path:
        write_image(tmp_path / name / "ant" / "1.png")
        write_image(tmp_path / name / "bee" / "1.png", seed=1)
        return tmp_path / name

    (tmp_path / "empty").mkdir()
    refused(tmp_path, "./empty", "empty has no subfolders. Each class of images must have one")
    (fresh("none") / "cow").mkdir()
    refused(tmp_path, "./none", r"none/cow holds no images: the class 'cow' has none")
    (fresh("bad") / "bee" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    refused(tmp_path, "./bad", r"bee/2\.png is no image, or it is damaged")
    refused(tmp_path, "./bad", r"bee/2\.png is a damaged PNG image", size=[3, 4], mode="L")
    (fresh("text") / "bee" / "2.png").write_text("text")
    refused(tmp_path, "./text", r"bee/2\.png is neither a PNG nor a JPEG image", size=[3, 4], mode="L")
    (fresh("other") / "bee" / "list.csv").write_text("text")
    refused(tmp_path, "./other", r"bee/list\.csv is no image that can be read\. Images end with \.png, \.jpg, \.jpeg")
    write_image(fresh("sizes") / "bee" / "2.png", size=(5, 3))
    refused(tmp_path, "./sizes", r"2\.png has 5 x 3 pixels, .*1\.png has 4 x 3\. data\.size: \[height, width\]")
    refused(tmp_path, "./sizes", r"2\.png has 5 x 3 pixels\. It must have 4 x 3", size=[3, 4], fit="exact")
    refused(tmp_path, "./sizes", r"data\.size is \[3\]", size=[3])
    write_image(fresh("val") / "train" / "ant" / "1.png")
    refused(tmp_path, "./val", r"val/ant lies beside train and would not be read")
    write_image(tmp_path / "new" / "train" / "ant" / "1.png")
    write_image(tmp_path / "new" / "test" / "cow" / "1.png")
    refused(tmp_path, "./new", "the train images have no class 'cow'")
    write_image(fresh("loose") / "2.png")
    refused(tmp_path, "./loose", r"loose/2\.png lies beside folders and would not be read")
    write_image(tmp_path / "new" / "2.png")
    refused(tmp_path, "./new", r"new/2\.png lies beside folders")
    (fresh("gone") / "bee" / "2.png").symlink_to(tmp_path / "nowhere.png")
    refused(tmp_path, "./gone", r"bee/2\.png cannot be read: No such file")
    refused(tmp_path, "./absent", r"data: there is no .*absent")


FUNCTION = """
import numpy as np
from helper import NAMES

x = np.random.default_rng(0).normal(size=(40, 3))
y = np.arange(40) % 2

def pairs(): return (x, y), (x[:8] + 1, y[:8])
def named(): return {"train": ({"a": x, "b": x > 0}, y), "test": ({"a": x[:8] + 1, "b": x[:8] > 5}, y[:8]), "classes": NAMES}
def alone(): return x, y
def grouped(): return {"a": x}, y, np.arange(40) // 4
def flat(): return {"x_train": x, "y_train": y, "x_test": x[:8] + 1, "y_test": y[:8]}
def flat_pairs(): return {"x": x, "y": y}, {"x": x[:8] + 1, "y": y[:8]}
def listed(rows): return [[float(k), 1.0] for k in range(rows)], ["b", "a"] * (rows // 2)
def nothing(): pass
def number(): return 3
def three(): return (x, y), (x, y), (x, y)
def ragged(): return [[1], [1, 2]], [0, 1]
def uneven(): return x, y[:-1]
def other(): return (x, y), (x[:, :2], y)
def extra(): return {"train": (x, y), "val": (x, y)}
def twins(): return {"train": (x, y), "classes": ["a", "a"]}
def classes(): return {"train": (x, y), "classes": 2}
def broken():
    scale = 1
    return x / unknown
def leaves(): raise SystemExit(3)
"""


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text(FUNCTION)
    (tmp_path / "code" / "helper.py").write_text("NAMES = ['no', 'yes']\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "inputs", "train", "test"),
    [
        ("pairs", {"x"}, 40, 8),
        ("named", {"a", "b"}, 40, 8),
        ("alone", {"x"}, 40, None),
        ("grouped", {"a"}, 40, None),
        ("flat", {"x"}, 40, 8),
        ("flat_pairs", {"x"}, 40, 8),
    ],
)
def test_functions(functions: Path, name: str, inputs: set[str], train: int, test: int | None) -> None:
    found = source(functions, f"./code/mine.py:{name}")
    assert set(found.train.inputs) == inputs and len(found.train) == train
    assert (None if found.test is None else len(found.test)) == test
    assert set(found.train.sha256) == {f"mine.py:{name}"}
    assert found.train.inputs[min(inputs)].dtype == np.float32
    assert (found.train.classes == ("no", "yes")) == (name == "named")
    assert (found.train.groups_N is not None) == (name == "grouped")
    again = source(functions, f"./code/mine.py:{name}").train
    assert again.sha256 == found.train.sha256


def test_a_function_takes_options(functions: Path) -> None:
    found = source(functions, "code/mine.py:listed", options={"rows": 6}, input="point").train
    assert found.inputs["point"].shape == (6, 2) and found.classes == ("a", "b")
    assert found.sha256 != source(functions, "code/mine.py:listed", options={"rows": 8}).train.sha256


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", r"mine\.py:nothing returns nothing\. It must return arrays by name"),
        ("number", r"mine\.py:number returns a int\."),
        ("three", r"mine\.py:three returns tuple of 3\."),
        ("ragged", r"mine\.py:ragged: x has rows that differ in length"),
        ("uneven", "has arrays of different length: x 40, labels 39"),
        ("other", r"test rows: x is float32 \[2\]\. In the train rows it is float32 \[3\]"),
        ("extra", r"mine\.py:extra returns 'val' beside train, test and classes"),
        ("twins", r"mine\.py:twins: classes names 'a' twice"),
        ("classes", r"mine\.py:classes returns 2 as classes\. It must return a list of names"),
        ("broken", r"mine\.py:broken fails: NameError: name 'unknown' is not defined \(mine\.py, line 26\)\."),
        ("leaves", r"mine\.py:leaves fails: SystemExit: 3"),
        ("named2", r"mine\.py has no function 'named2'\. Did you mean 'named'\?"),
        ("na me", r"It must be FILE\.py:FUNCTION"),
    ],
)
def test_functions_that_are_refused(functions: Path, name: str, said: str) -> None:
    refused(functions, f"./code/mine.py:{name}", said)


def test_a_file_that_cannot_be_imported_shows_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import numpy\n\nfrom below import x\n")
    (tmp_path / "below.py").write_text("\nx = {}['key']\n")
    (tmp_path / "typo.py").write_text("def load(:\n")
    (tmp_path / "lacks.py").write_text("\n\nimport no_such_package\n")
    refused(tmp_path, "./bad.py:load", r"bad\.py cannot be imported: KeyError: 'key' \(below\.py, line 2\)\.")
    refused(tmp_path, "./typo.py:load", r"typo\.py cannot be imported: SyntaxError: .* \(typo\.py, line 1\)\.")
    refused(tmp_path, "./lacks.py:load", r"No module named 'no_such_package' \(lacks\.py, line 3\)\.")
    refused(tmp_path, "./absent.py:load", r"data: there is no .*absent\.py")


def test_a_bundles_function_runs_only_where_the_user_points_at_it(
    functions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle may come from anyone, and may name any file on this machine."""
    monkeypatch.chdir(functions)
    settings = DataSettings(dataset="./code/mine.py:pairs")
    with pytest.raises(
        ConfigError, match=r"the function 'pairs' in mine\.py\. To run it, name the folder .* --data-dir"
    ):
        _ = open_data(settings).train
    assert len(open_data(settings, Path("code")).train) == 40
    absolute = DataSettings(dataset=f"{functions}/code/mine.py:pairs")
    with pytest.raises(ConfigError, match=r"there is no .*elsewhere/mine\.py"):
        _ = open_data(absolute, functions / "elsewhere").train


def test_files_of_a_bundles_data_are_looked_for_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    np.savez(tmp_path / "sub" / "d.npz", x=X, y=Y)
    settings = DataSettings(dataset="./sub/d.npz")
    monkeypatch.chdir(tmp_path)
    assert len(open_data(settings).source.train) == 60
    monkeypatch.chdir("/")
    for folder in (tmp_path, tmp_path / "sub"):
        assert len(open_data(settings, folder).source.train) == 60
    with pytest.raises(ConfigError, match=r"there is no sub/d\.npz\. --data-dir names the folder that holds it"):
        _ = open_data(settings).train


def own(tmp_path: Path, **keys: Any) -> Data:
    np.savez(tmp_path / "d.npz", x=X, y=Y, who=np.arange(60) // 5)
    return open_data(DataSettings(dataset="./d.npz", **keys), None, tmp_path)


def test_five_splits_of_one_file_share_no_row_and_no_group(tmp_path: Path) -> None:
    data = own(tmp_path, group="who")
    data.check()
    assert sum(data.describe().values()) == 60
    splits = data.splits
    parts = [splits.train, splits.validation, splits.tune, splits.certify, data.test]
    groups = [set(part.groups_N.tolist()) for part in parts if part.groups_N is not None]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 12
    again = own(tmp_path, group="who")
    assert np.array_equal(again.test.inputs["x"], data.test.inputs["x"])
    other = own(tmp_path, group="who", seed=1)
    assert not np.array_equal(other.test.inputs["x"], data.test.inputs["x"])


def test_sizes_are_shares_where_nothing_is_said(tmp_path: Path) -> None:
    data = own(tmp_path, ignore="who")
    assert data.describe() == {"train": 33, "validation": 5, "tune": 5, "certify": 8, "test": 9}
    counted = own(tmp_path, ignore="who", test=20, validation=2, tune=3, certify=0.25)
    assert counted.describe() == {"train": 25, "validation": 2, "tune": 3, "certify": 10, "test": 20}


def test_equal_rows_of_one_file_lie_in_one_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.concatenate([X, X]), y=np.concatenate([Y, Y]))
    data = open_data(DataSettings(dataset="./d.npz"), None, tmp_path)
    data.check()
    splits = data.splits
    parts = [splits.train, splits.validation, splits.tune, splits.certify, data.test]
    seen = [{row.tobytes() for row in part.inputs["x"]} for part in parts]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 60 and sum(map(len, parts)) == 120


def test_train_rows_among_the_test_rows_are_refused_or_dropped(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_train=X, y_train=Y, x_test=X[[7, 3]], y_test=Y[[7, 3]])

    def data(**keys: Any) -> Data:
        return open_data(DataSettings(dataset="./d.npz", **keys), None, tmp_path)

    with pytest.raises(ConfigError, match=r"d\.npz: 2 train rows are equal to a test row, train row 3 to test row 1"):
        data().check()
    dropped = data(duplicates="drop")
    dropped.check()
    assert len(dropped.train) == 58 and len(dropped.test) == 2


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    def refuses(said: str, arrays: dict[str, Any], **keys: Any) -> None:
        np.savez(tmp_path / "d.npz", **arrays)
        with pytest.raises(ConfigError, match=said):
            open_data(DataSettings(dataset="./d.npz", **keys), None, tmp_path).check()

    both = {"x_train": X, "y_train": Y, "x_test": X + 50, "y_test": Y}
    refuses(r"data\.test is 0\.2, but \./d\.npz brings test rows of its own", both, test=0.2)
    grouped = {**both, "group_train": np.arange(60), "group_test": np.arange(59, 119)}
    refuses("group 59 has rows among the train rows and among the test rows", grouped)
    refuses(r"class 0 has no rows\. Labels are numbered from 0", {"x": X, "y": Y + 1})
    stray = np.where(np.arange(60) == 41, 1000, Y)
    found = "class 3 has no rows.* without gaps, and 1 row has a larger one: 1000 in row 41"
    refuses(rf"{found}\.", {"x": X, "y": stray})
    refuses(
        r"without gaps, and 60 rows have a larger one: 4 in test row 0\.",
        {"x_train": np.concatenate([X, X + 9]), "y_train": np.tile(Y, 2), "x_test": X + 50, "y_test": np.full(60, 4)},
    )
    rare = np.where(np.arange(60) == 59, 3, Y)
    refuses("class 3 has only row 59, and none in the train split", {"x": X, "y": rare}, test=0.5, certify=0.6)
    late = np.where(np.arange(60) < 57, Y, 3)
    refuses("class 3 has 3 rows, test row 57 first, and none in the train split", both | {"y_test": late})
    named = {"x": X, "y": Y, "classes": np.array(list("abcd"))}
    refuses("class 'd' has no rows", named)
    refuses("every row has label 0. There must be at least two classes", {"x": X, "y": Y * 0})
    refuses(r"data\.url has no effect on \./d\.npz", {"x": X, "y": Y}, url="http://x")


def test_an_unknown_data_set_is_told_what_there_is(tmp_path: Path) -> None:
    refused(
        tmp_path, "minst", r"data\.dataset is 'minst'\. It must be one of cifar-10, .*, or rows of your own: \./FILE"
    )
    (tmp_path / "rows.parquet").write_text("x")
    refused(tmp_path, "./rows.parquet", r"rows\.parquet is a file of a kind that is not known")
