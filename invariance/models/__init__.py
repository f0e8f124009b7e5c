"""The networks under test: declarations, which import no Keras, and the Keras models that they build."""
