"""How much memory the stages take, computed from parameters and the shapes of models; for `gr2 doctor`."""
