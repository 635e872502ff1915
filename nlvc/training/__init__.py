"""How a model is trained: the state and its one pure step, checkpoints, the journal of a run."""
