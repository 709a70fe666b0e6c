"""An exported file needs none of this toolkit: ONNX Runtime, numpy and OpenCV matte a photograph as a whole.

    python onnxruntime_only.py model.onnx photo.jpg trimap.png alpha.png

Memory grows with the photograph; the runtime of this toolkit cuts it into windows, with the same result.
"""

import sys

import cv2
import numpy as np
import onnxruntime

if len(sys.argv) != 5:
    sys.exit("usage: python onnxruntime_only.py MODEL.onnx PHOTO TRIMAP ALPHA.png")
model, photo, trimap_file, output = sys.argv[1:]
image = cv2.imread(photo, cv2.IMREAD_COLOR)[..., ::-1]  # uint8 H, W, 3, from OpenCV's BGR to RGB
trimap = cv2.imread(trimap_file, cv2.IMREAD_GRAYSCALE)  # uint8 H, W: 0, 128 or 255
height, width = trimap.shape

pad = [(0, -height % 32), (0, -width % 32)]  # the network halves its input five times
inputs = {
    "image": np.pad(image, [*pad, (0, 0)], mode="reflect")[None],
    "trimap": np.pad(trimap, pad, mode="reflect")[None],
}
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
alpha = session.run(["alpha"], inputs)[0][0, :height, :width]  # float32 in [0, 1]
cv2.imwrite(output, np.rint(alpha * 255).astype(np.uint8))
