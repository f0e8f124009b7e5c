"""Generators learnt from classes of which every drawing shows another original: where there is a movement, and not."""

import numpy as np
import pytest

from invariance.generators_from_classes import learn_generator_from_classes
from tests.test_generators import PERIODIC, Movement, error


def drawn(movement, drawings=1000, classes=6, reach=np.pi, seed=1):
    """Drawings of classes: a vector of the class, varied along two directions of its own, at a random time."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(classes):
        middle, styles = movement.points(1), 0.3 * movement.points(2)
        originals = middle + rng.standard_normal((drawings, 2)) @ styles
        found.append(movement.true.move(originals, rng.uniform(-reach, reach, drawings)))
    return found


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("reach", [np.pi, np.pi / 2], ids=["everywhere", "half"])
def test_periodic_movement_is_learnt_from_classes(reach, seed):
    movement = Movement(PERIODIC, seed=seed)
    learnt, numbers = learn_generator_from_classes(drawn(movement, reach=reach), seed=seed)
    assert learnt.period == 2 * np.pi == numbers["period"]
    assert sorted(learnt.frequencies[learnt.frequencies > 0]) == sorted(PERIODIC)
    assert numbers["starts_agreement"] > 0.999
    # Also where nothing was drawn; .0001 and less were measured where everything was. Doing nothing costs about 1.
    for angle in (np.pi / 2, np.pi):
        assert min(error(learnt, movement, sign, angle) for sign in (1, -1)) < 1e-3
    # Moved drawings are like drawings, as long as they stay where others are.
    assert numbers["moved_residual"] < 1.2 if reach == np.pi else numbers["moved_residual"] > 2


def test_movement_that_does_not_return_is_learnt_from_classes():
    movement = Movement(np.sqrt([1, 2, 3, 5, 7]))
    learnt, numbers = learn_generator_from_classes(drawn(movement, reach=3.0))
    assert learnt.period is None and numbers["base_frequency"] is None
    slope = np.sqrt(7) / learnt.frequencies.max()
    # Half of the way of what was shown; one sign is right.
    assert min(error(learnt, movement, sign * slope, 1.5) for sign in (1, -1)) < 0.05


def test_without_a_movement_the_starts_disagree():
    """Negative control: nothing moved, so differences within a class have nothing in common with others'."""
    classes = drawn(Movement(PERIODIC), reach=0.0)
    with pytest.warns(UserWarning, match="^The random starts found different generators"):
        _, numbers = learn_generator_from_classes(classes)
    # Moved drawings are like no drawing.
    assert numbers["moved_residual"] > 10


def test_drawings_of_one_original_each_are_needed():
    points = Movement(PERIODIC).points(3)
    with pytest.raises(ValueError, match=r"^Some class must have several drawings\. Received: none$"):
        learn_generator_from_classes([points[:1], points[1:2]])
    with pytest.raises(ValueError, match=r"^Pairs must differ"):
        learn_generator_from_classes([np.repeat(points[:1], 20, axis=0)])


def test_equal_seeds_give_equal_generators():
    classes = drawn(Movement(PERIODIC), drawings=300)
    one, again = (learn_generator_from_classes(classes, seed=3)[0] for _ in range(2))
    np.testing.assert_array_equal(one.vectors, again.vectors)
