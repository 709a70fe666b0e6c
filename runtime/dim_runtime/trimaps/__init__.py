"""Make trimaps from what people have: a mask, a cut-out, strokes of a brush, a box."""
