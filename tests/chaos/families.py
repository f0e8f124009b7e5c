"""One cheap run of every kind of model, in the profile `smoke` and on the embedded digits."""

from dataclasses import dataclass
from importlib import import_module

from invariance.runs.folder import RunFolder

DATASET, PROFILE, SEED = "digits", "smoke", 0


@dataclass(frozen=True)
class Family:
    """A model and its experiment."""

    experiment: str
    model: str

    @property
    def module(self):
        """What ``python -m`` runs."""
        return f"experiments.{self.experiment}"

    @property
    def declared(self):
        """The experiment's declaration."""
        return import_module(self.module).EXPERIMENT

    def argv(self, runs):
        """The command line of the run."""
        return ["--models", self.model, "--profile", PROFILE, "--dataset", DATASET, "--runs", str(runs)]

    def folder(self, runs):
        """The run's folder below the folder of all runs."""
        return RunFolder.of(runs, self.experiment, DATASET, PROFILE, self.model, SEED)


FAMILIES = {
    # With dropout, batch norm and moving averages.
    "cnn": Family("recognition_rotation", "cnn_bn_00"),
    "capsnet_dr": Family("recognition_rotation", "capsnet_dr"),
    "capsnet_em": Family("recognition_rotation", "capsnet_em"),
    "ae": Family("generation_rotation", "ae_rotation"),
    # Three optimisers.
    "aae": Family("generation_rotation", "aae_rotation"),
    "gencaps": Family("generation_rotation", "gencaps_digits_rotation"),
    "operator": Family("generation_rotation", "operator"),
    # The next three learn in stages before the network is trained.
    "flow": Family("recognition_rotation", "flow"),
    "flow_k0": Family("recognition_rotation", "flow_k0"),
    "generator": Family("recognition_rotation", "generator"),
    "tangents": Family("tangents_rotation", "tangents"),
    "compensation": Family("rotation_compensation", "hyper_compensation"),
}
