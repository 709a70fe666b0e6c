"""Self-test of the GPU back ends on the user's machine, for ``dim-matte doctor --gpu``.

The room opens each installed back end, runs two small networks through it, and compares them with PyTorch's
numbers that are shipped beside the code. Nothing of it needs torch or a network connection.
"""
