"""Pure judgement: tensors, budgets, decisions, verdicts."""
