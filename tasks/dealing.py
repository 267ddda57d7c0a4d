"""How an experiment's training records come to its hospitals: dealt, or pooled at one place."""

from configs import Experiment, InputError
from tasks.base import Records
from tasks.partition import Deal, Hospital, deal


def deal_experiment(experiment: Experiment, records: Records) -> Deal:
    """Deal the training records of an experiment.

    A pure function of the records, `hospitals` and `seed`, so that every process deals alike, and runs
    that differ in their mechanism only deal alike. Mechanism `pooled` puts all hospitals' records at one place,
    mechanism `alone` leaves one hospital with what the deal gave it, and the others out.

    Raises:
        InputError: the deal cannot be made, or `hospitals.only` is none of its hospitals.
    """
    parts = deal(records, experiment.hospitals, experiment.seed)
    if experiment.privacy.mechanism == "alone":
        only, names = experiment.hospitals.only, [h.name for h in parts.hospitals]
        if only not in names:
            raise InputError(f"hospitals.only: '{only}' is none of {', '.join(names)}.")
        return Deal((parts.hospitals[names.index(only)],), parts.leftover, parts.hospitals)
    if experiment.privacy.mechanism != "pooled":
        return parts
    together = Records.joined([h.records for h in parts.hospitals])
    return Deal((Hospital("pooled", together),), parts.leftover, parts.hospitals)
