"""Hostile requests to ``dim-matte serve``: hand-made ones, and Schemathesis over its OpenAPI description."""
