"""The names of the autoencoders' regularisers, for their declaration and the Keras model. Imports no Keras."""

# The critic's loss: Wasserstein with the gradient penalty per sample, the same with the original program's penalty
# over all pairs of a batch (`losses.gradient_penalty`), and the cross-entropy of the discriminator of the AAE paper.
WASSERSTEIN, WASSERSTEIN_BATCHWIDE, CROSS_ENTROPY = "wasserstein", "wasserstein_batchwide", "cross_entropy"
REGULARISERS = (WASSERSTEIN, WASSERSTEIN_BATCHWIDE, CROSS_ENTROPY)
