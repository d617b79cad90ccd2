"""Hand over when unsure: a fallback behind a model (`HandOver`), a new adapter on trial beside the old (`Trial`)."""

from __future__ import annotations

from cmat_graph.models.handover.confidence import Calibration, calibrated, confidence_metadata, raw_confidence
from cmat_graph.models.handover.fallback import HandOver
from cmat_graph.models.handover.referee import TrialResult
from cmat_graph.models.handover.trial import Trial

__all__ = [
    "Calibration",
    "HandOver",
    "Trial",
    "TrialResult",
    "calibrated",
    "confidence_metadata",
    "raw_confidence",
]
