"""The window of a trial: load from the client, readings from the nodes, the order of trials, the proof of the mode."""
