"""What the declarations of classifiers share: their cost. Imports no TensorFlow."""


class Costed:
    """A classifier whose layers' forward operations are known: ``_layer_flops(input_shape, classes)`` yields them."""

    def flops(self, input_shape, classes: int) -> float:
        """Floating-point operations of the matrix products in a forward pass of one image (2 per multiply-add)."""
        return sum(self._layer_flops(input_shape, classes))

    def training_flops(self, input_shape, classes: int) -> float:
        """The same for a training step: forward, and backward to weights and, but for the first layer, to inputs."""
        first, *others = self._layer_flops(input_shape, classes)
        return 2 * first + 3 * sum(others)
