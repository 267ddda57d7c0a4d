"""How well a model does on held-out records: metrics, per unit intervals, for classes and for masks."""

from tasks.metrics.base import Judged, Metrics, Sample
from tasks.metrics.classification import Classified, classification_metrics
from tasks.metrics.intervals import LEVEL, Interval, interval
from tasks.metrics.segmentation import Overlaps, Segmented

__all__ = [
    "LEVEL",
    "Classified",
    "Interval",
    "Judged",
    "Metrics",
    "Overlaps",
    "Sample",
    "Segmented",
    "classification_metrics",
    "interval",
]
