"""Tasks on transformed images, and how models are measured at them.

`task`, `recognition`, `generation`, `compensation`, `metrics` and `columns` are declarations: they import neither Keras
nor TensorFlow. `classify`, `draw` and `batches` compute.
"""

from invariance.tasks.compensation import Compensation
from invariance.tasks.generation import Generation
from invariance.tasks.recognition import Recognition
from invariance.tasks.task import Task, task_from_json

__all__ = ["Compensation", "Generation", "Recognition", "Task", "task_from_json"]
