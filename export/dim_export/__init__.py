"""From a checkpoint to a deployable artefact: export, inspection, parity."""
