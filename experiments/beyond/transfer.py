"""Networks that learn the transformation from the free classes, as entries of the experiments."""

from dataclasses import replace

from invariance.experiment import Budget, Entry
from invariance.models.flow_drawing import FlowDrawing
from invariance.models.generator_drawing import GeneratorDrawing
from invariance.models.operator_autoencoder import OperatorAutoencoder
from invariance.transfer.flow_from_labels import FlowFromLabels
from invariance.transfer.flow_from_pairs import FlowFromPairs
from invariance.transfer.generator_from_labels import GeneratorFromLabels
from invariance.transfer.generator_from_pairs import GeneratorFromPairs
from invariance.transfer.learner import Learner, Transfer

K0 = "K0: labelled images"
K1 = "K1: which drawings show the same image"
SHUFFLED = "(but not which pixels are neighbours)"

FROM_PAIRS, FROM_LABELS = FlowFromPairs(), FlowFromLabels()
LINEAR, LINEAR_FROM_LABELS = GeneratorFromPairs(), GeneratorFromLabels()
# For `smoke`.
FROM_FEW_PAIRS = replace(FROM_PAIRS, steps=4, refine_steps=2, batch_size=64)
FROM_FEW_LABELS = replace(FROM_LABELS, steps=2, pool=256, moved=16)
LINEAR_FROM_FEW, LINEAR_FROM_FEW_LABELS = replace(LINEAR, batches=16), replace(LINEAR_FROM_LABELS, pool=200)


def learning(entry: Entry, learner: Learner, tiny: Learner, told: str) -> Entry:
    """The same network, trained on images that are moved as ``learner`` learns it; as ``tiny`` does in `smoke`."""
    variants = {
        profile: Transfer(entry.model_for(profile), tiny if profile == "smoke" else learner)
        for profile in entry.budgets
        if profile != "paper"
    }
    return replace(entry, model=Transfer(entry.model, learner), variants=variants, told=told)


def learners(entry: Entry) -> dict[str, Entry]:
    """A network after each way to learn the transformation, by name."""
    return {
        "flow": learning(entry, FROM_PAIRS, FROM_FEW_PAIRS, K1),
        "flow_k0": learning(entry, FROM_LABELS, FROM_FEW_LABELS, K0),
        "generator": learning(entry, LINEAR, LINEAR_FROM_FEW, f"{K1} {SHUFFLED}"),
        "generator_k0": learning(entry, LINEAR_FROM_LABELS, LINEAR_FROM_FEW_LABELS, f"{K0} {SHUFFLED}"),
    }


K2 = "K2: which drawings show the same image, and the parameter as a number"

# A flow learnt from pairs is nearly right; the rest takes few updates.
DRAWING = Budget(1500, 32, 250, 3e-3, warmup_steps=20, grid_spacing=9)
DRAWING_BUDGETS = {
    "smoke": replace(
        DRAWING, steps=4, batch_size=8, steps_per_epoch=2, warmup_steps=1, grid_spacing=45, images_per_class=8
    ),
    "quick": replace(DRAWING, steps=300, steps_per_epoch=50, images_per_class=100),
    "standard": DRAWING,
    "paper": replace(DRAWING, steps=10_000, steps_per_epoch=1000, grid_spacing=None),
}


def drawers(fields: int, circular: bool, **changes) -> dict[str, Entry]:
    """Networks that draw by moving the image; ``changes`` of the budgets."""
    flow = Entry(FlowDrawing(fields, circular), DRAWING_BUDGETS).with_budgets(**changes)
    found = {"flow": learning(flow, FROM_PAIRS, FROM_FEW_PAIRS, K2)}
    if fields == 1:
        generator = replace(flow, model=GeneratorDrawing(circular=circular)).with_budgets(["standard"], steps=300)
        found["generator"] = learning(generator, LINEAR, LINEAR_FROM_FEW, f"{K2} {SHUFFLED}")
    return found


def operator(model: OperatorAutoencoder, steps: int, rate: float, quick_steps: int, quick_rate: float) -> Entry:
    """A linear operator that is told the parameter, trained for ``steps`` updates; quickly, for ``quick_steps``."""
    budget = replace(DRAWING, steps=steps, learning_rate=rate)
    budgets = {
        "smoke": replace(DRAWING_BUDGETS["smoke"], learning_rate=rate),
        "quick": replace(budget, steps=quick_steps, learning_rate=quick_rate, images_per_class=100),
        "standard": budget,
        "paper": replace(budget, steps=10 * steps, grid_spacing=None),
    }
    return Entry(model, budgets)
