"""Networks of F-LLM: plant, residual observer, roll-out and stability figures."""
