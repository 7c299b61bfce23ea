import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from common.serving.histogram import Histogram
from common.serving.metrics import Metrics

NAMES = """answers_total late_answers_total audit_rows_total request_seconds stage_seconds batch_rows
forwarded_bytes_total upstream_seconds upstream_state queue_rows refused_total""".split()


def test_every_name_of_the_contract() -> None:
    metrics = Metrics("device")
    metrics.answered("edge", 1, "deadline", 3)
    metrics.refused("bad_shape")
    metrics.stage_ran(0, 0.002, 7)
    metrics.upstream_took("10.0.0.1:1", 0.1)
    metrics.upstream_is("10.0.0.1:1", True)
    metrics.watch_queue(lambda: 5)
    metrics.guaranteed("sure", True)
    metrics.guaranteed("fast", False)
    families = {f.name: f for f in text_string_to_metric_families(metrics.text().decode())}
    assert {f"offramp_{name.removesuffix('_total')}" for name in NAMES} <= families.keys()
    answer = next(s for s in families["offramp_answers"].samples if s.name == "offramp_answers_total")
    assert answer.labels == {"tier": "device", "by": "edge", "exit": "1", "degraded": "deadline"} and answer.value == 3
    assert families["offramp_queue_rows"].samples[0].value == 5
    promised = {s.labels["operating_point"]: s.value for s in families["offramp_guaranteed"].samples}
    assert promised == {"sure": 1, "fast": 0}


def test_the_documents_name_every_metric_with_its_labels_and_no_other() -> None:
    metrics = Metrics("device")
    metrics.answered("edge", 1, "deadline", 3)
    metrics.refused("bad_shape")
    metrics.upstream_is("10.0.0.1:1", True)
    metrics.guaranteed("sure", True)
    families = {f.name + "_total" * (f.type == "counter"): f for f in metrics.registry.collect()}
    docs = Path(__file__).parents[2] / "docs"
    named = {name for path in docs.glob("*.md") for name in re.findall(r"\bofframp_[a-z_]+\b", path.read_text())}
    assert named == families.keys()
    listed = re.findall(r"`(offramp_\w+)\{([\w,]+)\}`", (docs / "operations.md").read_text())
    assert len(listed) >= 4
    for name, labels in listed:
        assert set(labels.split(",")) <= families[name].samples[0].labels.keys()


def test_the_histogram_counts_like_prometheus() -> None:
    histogram = Histogram("h", "text", ("a",), (1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.labels("x").observe(value)
    (family,) = histogram.collect()
    samples = {(s.name, s.labels.get("le")): s.value for s in family.samples}
    assert samples == {
        ("h_bucket", "1.0"): 2,
        ("h_bucket", "2.0"): 3,
        ("h_bucket", "+Inf"): 4,
        ("h_count", None): 4,
        ("h_sum", None): 12.0,
    }
