"""Engines that run an artefact. Each imports its engine only when it is opened."""
