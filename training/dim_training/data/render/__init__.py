"""Foregrounds with exact alpha, and backgrounds, path-traced by Blender.

The way of an image:

1. :mod:`staging` chooses a subject, camera and light by the seed;
2. a function of ``subjects`` fills a :mod:`scene` with :mod:`strands` and :mod:`surfaces`;
3. :mod:`blender` renders colours and alpha in two passes, with :mod:`blender_materials`;
4. :mod:`develop` makes straight 8-bit colours;
5. :mod:`data_set` keeps the file and its line of the index.

For a background, :mod:`backgrounds` takes the place of the first two steps, with :mod:`pictures` on walls.
:mod:`run` does that for many seeds. Only the modules of the third step import bpy; none imports PyTorch.
"""
