"""What is decided from measured scores: teachers, regressions and their repair, the gate. Each decision is a file of
results/decisions/."""
