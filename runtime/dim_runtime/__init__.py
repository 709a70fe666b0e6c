"""Image and trimap in, alpha matte out: no PyTorch, any image size.

>>> from dim_runtime import Matting
>>> with Matting() as matting:
...     alpha = matting(image, trimap)  # uint8 H, W, 3 RGB and uint8 H, W -> float32 H, W in [0, 1]
"""

from dim_runtime.backends.open import default_model
from dim_runtime.inference.tiler import run_plan
from dim_runtime.matting import Matting
from dim_runtime.planning.geometry import Plan, Rectangle, Window

__all__ = ["Matting", "Plan", "Rectangle", "Window", "default_model", "run_plan"]
