"""Deep Image Matting: the network, and the definitions that training, export and runtime share.

Importing this package is fast. Only :mod:`dim.network` and :mod:`dim.checkpoint` import torch; all other
modules need numpy and OpenCV only.
"""

__version__ = "0.1.0"
