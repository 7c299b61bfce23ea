#!/bin/sh
# Makes an environment per peer under .venv-bench/; one that cannot be installed is left out, and the tables say so.
# Each gets the onnxruntime, numpy and orjson of the environment that runs the benchmarks.
set -u
python=${1:-python3}
home=$(cd "$(dirname "$0")" && pwd)
places=$home/../../.venv-bench
same=$("$python" -c 'from importlib.metadata import version
print(*(f"{name}=={version(name)}" for name in ("onnxruntime", "numpy", "orjson")))') || exit 1
for wanted in "$home"/requirements-*.txt; do
    peer=$(basename "$wanted" .txt | sed s/requirements-//)
    [ -e "$places/$peer/.ready" ] && [ ! "$wanted" -nt "$places/$peer/.ready" ] && continue
    echo "== installing $peer into .venv-bench/$peer"
    # shellcheck disable=SC2086  # several words on purpose
    if "$python" -m venv --clear "$places/$peer" &&
        "$places/$peer/bin/python" -m pip install -qq --disable-pip-version-check $same -r "$wanted"; then
        touch "$places/$peer/.ready"
    else
        echo "== $peer could not be installed: it will be missing from the tables"
        rm -rf "${places:?}/$peer"
    fi
done
