"""What Deep Image Matting is: the network, and the vocabulary that training, export and runtime share.

Importing this package is light. Only :mod:`dim.network`, :mod:`dim.network.pooling` and :mod:`dim.checkpoint`
import torch; everything else runs on numpy and OpenCV.
"""

__version__ = "0.1.0"
