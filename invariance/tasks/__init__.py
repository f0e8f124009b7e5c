"""Tasks on transformed images, and how models are measured at them.

`task`, `recognition`, `generation`, `compensation`, `tangents`, `metrics` and `columns` are declarations: they import
neither Keras nor TensorFlow. `classify`, `draw`, `follow` and `batches` compute.
"""

from invariance.tasks.compensation import Compensation
from invariance.tasks.generation import Generation
from invariance.tasks.recognition import Recognition
from invariance.tasks.tangents import Tangents
from invariance.tasks.task import Task, task_from_json

__all__ = ["Compensation", "Generation", "Recognition", "Tangents", "Task", "task_from_json"]
