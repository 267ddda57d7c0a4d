"""How an experiment's training records come to its hospitals: dealt, or pooled at one place."""

from configs import Experiment
from tasks.base import Records
from tasks.partition import Deal, Hospital, deal


def deal_experiment(experiment: Experiment, records: Records) -> Deal:
    """Deal the training records of an experiment.

    A pure function of the records, `hospitals` and `seed`, so that every process deals alike, and runs
    that differ in their mechanism only deal alike. Mechanism `pooled` puts all hospitals' records at one place.
    """
    parts = deal(records, experiment.hospitals, experiment.seed)
    if experiment.privacy.mechanism != "pooled":
        return parts
    together = Records.joined([h.records for h in parts.hospitals])
    return Deal((Hospital("pooled", together),), parts.leftover)
