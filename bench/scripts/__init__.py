"""Opponents written here: single files in the manner of CleanRL (eager) and LeanRL (compiled).

Each has three modes:

- `eager`: plain PyTorch, with what costs nothing to write: fused Adam, no checks of distributions, rollouts in numpy;
- `compiled`: the policy, and the whole update from loss through backward to optimiser, handed to `torch.compile`;
- `functional`: the update as one graph without breaks: gradient, clipping and Adam as functions.
"""
