"""Counts and latencies of a station since its start, as Prometheus reads them."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from hyperspot.service.database.tables import Inspection

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets of latencies."""


class Measurements:
    """What the path of an image measures; from any thread.

    Attributes:
        registry: All of it.
        total: Seconds from the check of an image to its durable record.
        queue: Seconds in the queue.
        prediction: Seconds of the model.
        inspections: By product and decision. Requests without such a product are not counted, so that strangers make
            no new series.

    Examples:
        >>> from hyperspot.service.measurements import Measurements
        >>> measurements = Measurements()
        >>> measurements.queue.observe(0.004)
        >>> measurements.registry.get_sample_value("hyperspot_queue_seconds_count")
        1.0

    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.total = self._histogram("inspection", "Time from the check of an image to its durable record")
        self.queue = self._histogram("queue", "Time in the queue")
        self.prediction = self._histogram("prediction", "Time of the model")
        self.inspections = Counter(
            "hyperspot_inspections", "Inspections", ["product", "decision"], registry=self.registry
        )

    def count(self, inspection: Inspection, seconds: float) -> None:
        """Count an inspection that took some seconds."""
        self.total.observe(seconds)
        self.prediction.observe(inspection.milliseconds / 1000)
        self.inspections.labels(inspection.product_id, decision_of(inspection.is_anomalous)).inc()

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"hyperspot_{name}_seconds", text, buckets=SECONDS, registry=self.registry)


def decision_of(is_anomalous: bool | None) -> str:
    """Return the word for a decision, as filters and metrics use it.

    Examples:
        >>> from hyperspot.service.measurements import decision_of
        >>> decision_of(True), decision_of(False), decision_of(None)
        ('anomalous', 'good', 'none')

    """
    if is_anomalous is None:
        return "none"
    return "anomalous" if is_anomalous else "good"
