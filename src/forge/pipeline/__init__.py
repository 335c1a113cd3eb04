"""The parts of a pipeline that users write and configure. Nothing here runs."""
