"""The scenarios: what is done to a model, what is predicted, and what is measured."""
